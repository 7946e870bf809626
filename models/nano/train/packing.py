# SPDX-License-Identifier: LGPL-2.1-or-later
"""Batches: scenes rendered and packed with their questions into rows of fixed length."""
import os

import numpy as np
import torch

import heads
import questions
import scenes
import text as T

ROWS = 12                   # rows a step; half as many of eight frames
STILLS = 24                 # single frames a step, in the second course
LENGTH = {4: 288, 8: 384}   # tokens a row, by its frames
# How much likelier than others a question is to be among the few asked about a scene; a box is long and would rarely fit.
FAVOUR = {"motion": 6, "position": 6, "event": 4, "frame": 4, "shape": 2, "box": 7, "text": 6, "compare": 3, "countof": 1, "count": 1,
          "background": .3, "yesno": .5, "absent": .6, "foreign": .3}
# In the second course what was worst after the first.
AGAIN = {"box": 14, "text": 8, "pattern": 6, "motion": 4}
# Frames of the samples in a row; the odd counts are those of a stream's last chunk.
FOUR = [(4,), (2, 2), (2, 1, 1), (1, 1, 1, 1), (3, 1)]
EIGHT = [(8,), (8,), (5, 3), (6, 2), (7, 1)]


def switch(name):
    """Parts of the recipe that NANO_OFF=a,b leaves out, to measure what they bring."""
    return name not in os.environ.get("NANO_OFF", "").split(",")


def repetitive(s):
    """Three words in a row that come again: what teaches a model to go round in circles."""
    words = s.lower().replace(",", "").split()
    runs = list(zip(words, words[1:], words[2:]))
    return len(set(runs)) < len(runs)


def branches(rng, scene, room, tx, again):
    """(token ids, weight of each as a target, attribute or "", place) that each continue the scene's prompt; together at most `room` tokens.
    place: {offset: (coordinates, weight, number)} of tokens after which an answer is about one object's place, or a digit of that number of a box."""
    favour = FAVOUR | AGAIN if again else FAVOUR
    f = questions.facts(scene)
    pool = questions.turns(rng, f)
    among = 3 if f["kind"] == "several" else 1
    pool.sort(key=lambda t: -rng.random() ** (1 / (favour.get(t[0], 1) * (among if t[0] in ("color", "shape") else 1))))
    cap = questions.caption(f)
    if cap and not (switch("filter") and repetitive(cap)) and rng.random() < (0.75 if f["kind"] != "several" else 0.45):
        pool.insert(0, ("caption", questions.pick(rng, questions.CAPTION), cap))
    out, asked = [], set()
    while pool:
        turns = [pool.pop(0)]
        if rng.random() < 0.12 and pool and switch("pack") and turns[0][0] != "box":
            turns.append(pool.pop(0))
        if turns[0][0] in ("color", "shape") and len(turns) == 1 and rng.random() < 0.25 and " at the " not in turns[0][1]:
            turns = [questions.choice(rng, *turns[0][:3])]
        if any(t[1] in asked for t in turns):
            continue
        asked |= {t[1] for t in turns}
        ids, weight, attr, place = [], [], [], {}
        for i, (a, q, s, *where) in enumerate(turns):
            ask = tx.ids((T.again if i else T.ask)(q))
            ans = tx.ids(str(s)) + [tx.end]
            # Square averaging: a response of x tokens weighs sqrt(x), not x.
            each = [(len(ans) ** -0.5 if switch("square") else 1) * (2 if again and a == "text" else 1)] * len(ans)
            if where:
                o, k = where[0]
                xy = [*o["centres"][k], *o["boxes"][k]]
                place[len(ids) + len(ask) - 1] = xy, 1, heads.NONE
                if a == "box":
                    # What is hard about a box is its digits.
                    corner = -1
                    for j, t in enumerate(ans):
                        if t in tx.digits:
                            corner += ans[j - 1] not in tx.digits
                            each[j] = 0.5
                            place[len(ids) + len(ask) + j - 1] = xy, 0.15, round(o["boxes"][k][corner] * (heads.NUMBERS - 1))
            ids += ask + ans
            weight += [0] * len(ask) + each
            attr += [""] * len(ask) + [a] * len(ans)
        if len(ids) > room:
            if room < 14:
                break
            continue
        room -= len(ids)
        out.append((ids, weight, attr, place))
        if not switch("pack"):
            break
    return out


def row(rng, plan, rows, tx, again):
    """One packed row. plan: frames of each sample; rows: how many have been trained on."""
    length = LENGTH[sum(plan)]
    r = {k: np.zeros(length, np.int64) for k in ("ids", "pos", "seg", "br")}
    r |= {"target": np.full(length, -100), "weight": np.zeros(length, np.float32), "images": [], "frames": [], "labels": [], "tags": [], "asks": []}
    # Rooms differ, so that there is one for long answers, too.
    room = rng.uniform(0.4, 1.6, len(plan))
    room = (length - sum(len(tx.ids(T.open_prompt(n))) for n in plan)) * room / room.sum()
    at = spare = 0
    for s, n in enumerate(plan):
        scene = scenes.sample(rng, n, rows, T.WORDS, again)
        frames, labels = scenes.render(rng, scene, 0.5 if switch("jpeg") else 0)
        r["frames"].append(frames)
        r["labels"].append(labels)
        start = tx.ids(T.open_prompt(n))
        r["images"] += [at + i for i, t in enumerate(start) if t == tx.context]
        r["ids"][at:at + len(start)] = start
        r["pos"][at:at + len(start)] = np.arange(len(start))
        r["seg"][at:at + len(start)] = s + 1
        at += len(start)
        used = 0
        for b, (ids, weight, attr, place) in enumerate(branches(rng, scene, int(room[s]) + spare, tx, again)):
            m = len(ids)
            r["ids"][at:at + m], r["seg"][at:at + m], r["br"][at:at + m] = ids, s + 1, b + 1
            r["pos"][at:at + m] = len(start) + np.arange(m)
            # Predicted one position earlier.
            for i in range(m):
                if weight[i]:
                    r["target"][at + i - 1], r["weight"][at + i - 1] = ids[i], weight[i]
            r["asks"] += [(at + i, *v) for i, v in place.items()]
            for a in dict.fromkeys(attr):
                if a:
                    r["tags"].append((a, [at + i - 1 for i in range(m) if attr[i] == a]))
            at, used = at + m, used + m
        spare += int(room[s]) - used
    return r


def batch(seed, rows, tx, again=False):
    """Tensors of a step. Positions (images, ends, asks, tags) are flat, over all rows. again: the second course, with STILLS frames behind those of the
    rows, for the heads alone."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.04:
        plans = [EIGHT[i] for i in rng.integers(len(EIGHT), size=ROWS // 2)]
    else:
        plans = [FOUR[i] for i in rng.choice(len(FOUR), ROWS, p=(.46, .12, .16, .2, .06))]
    packed = [row(rng, p, rows, tx, again) for p in plans]
    length = len(packed[0]["ids"])
    t = {k: torch.from_numpy(np.stack([r[k] for r in packed])) for k in ("ids", "pos", "seg", "br", "target", "weight")}
    t["images"] = torch.tensor([i * length + p for i, r in enumerate(packed) for p in r["images"]])
    t["ends"] = t["images"].view(-1, T.VISUAL)[:, -1] + 1
    asks = [(i * length + p, *v) for i, r in enumerate(packed) for p, *v in r["asks"]]
    t["asks"] = torch.tensor([p for p, *_ in asks], dtype=torch.long)
    t["ask_xy"] = torch.tensor([xy for _, xy, *_ in asks]).view(-1, 6).float().clamp(0, 1)
    t["ask_weight"] = torch.tensor([w for *_, w, _ in asks])
    t["ask_number"] = torch.tensor([n for *_, n in asks], dtype=torch.long)
    more = [still(rng) for _ in range(STILLS)] if again else []
    t["frames"] = torch.from_numpy(np.concatenate([f for r in packed for f in r["frames"]] + [f for f, _ in more]))
    t["labels"] = heads.labels_of([x for r in packed for x in r["labels"]] + [x for _, x in more])
    t["tags"] = [(a, [i * length + p for p in ps]) for i, r in enumerate(packed) for a, ps in r["tags"]]
    return t


def still(rng):
    return scenes.render(rng, scenes.still_life(rng, T.WORDS, switch("pages")), 0.5 if switch("jpeg") else 0)


def stills(seed, n):
    """n single frames and their labels, for the dense pretraining."""
    rng = np.random.default_rng(seed)
    got = [still(rng) for _ in range(n)]
    return torch.from_numpy(np.concatenate([g[0] for g in got])), heads.labels_of([g[1] for g in got])


def block_mask(t):
    """Causal, within a sample, and not between two branches of it."""
    seg, br = t["seg"], t["br"]
    ok = (seg[:, :, None] == seg[:, None]) & ((br[:, None] == 0) | (br[:, :, None] == br[:, None]))
    ok &= torch.ones(seg.shape[1], seg.shape[1], dtype=torch.bool).tril()
    return torch.zeros(ok.shape, dtype=torch.bfloat16).masked_fill(~ok, -1e4)[:, None]

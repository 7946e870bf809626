# SPDX-License-Identifier: LGPL-2.1-or-later
"""Accuracy, attribute by attribute, on held-out H.264 clips.

    evaluate.py CLIPS --model MODEL            asks with the trainer's own forward
    evaluate.py CLIPS --asked FILE             writes what is asked, for pipeline.py
    evaluate.py CLIPS --answers FILE           scores what came through the real pipeline

Asks everything there is to ask and compares greedy answers with the truth as strings (boxes: overlap). The first way decodes with GStreamer,
takes each clip's frames as the plugin does, and shrinks them with Pillow's bicubic filter; it keeps them in CLIPS/frames.npz, so that
a second model costs only its own time.
"""
import argparse
import collections
import json
import os
import re
import subprocess

import numpy as np
import torch
from PIL import Image

import generate
import questions
import scenes
import text as T


def sampled(folder, t):
    w, h, n = t["width"], t["height"], t["frames"]
    line = f"gst-launch-1.0 -q filesrc location={folder}/{t['file']} ! decodebin ! videoconvert ! video/x-raw,format=RGBx ! fdsink fd=1"
    raw = subprocess.run(line.split(), stdout=subprocess.PIPE, check=True).stdout
    video = np.frombuffer(raw, np.uint8).reshape(-1, h, w, 4)[..., :3]
    # The frame on display in the middle of each n-th part.
    at = [int((t["start"] + t["duration"] * (k + 0.5) / n) * t["fps"] + 1e-6) for k in range(n)]
    return np.stack([np.asarray(Image.fromarray(video[i]).resize((scenes.SIZE, scenes.SIZE), Image.BICUBIC)) for i in at])


def facts(t):
    """The truth of a clip in the form that questions.py speaks about."""
    n = t["frames"]

    def known(o):
        x, y = o["x"], o["y"]
        still = o["action"] in ("still", "turn")
        return {**o, "cells": [scenes.cell_of(x, y)] * n, "boxes": [o.get("box")] * n, "size": o["size"] or "medium",
                "edge": [min(abs(v * 3 - j) for v in (x, y) for j in (1, 2)) if still else 0] * n}
    kind = {"image": "single", "eight": "single", "moving": "several"}.get(t["kind"], t["kind"])
    f = {**t, "kind": kind, "n": n, "objects": [known(o) for o in t["objects"]]}
    if "parts" in t:
        f["cut"] = t["cut_frame"]
        f["parts"] = [{**p, "n": n, "kind": "single", "objects": [known(o) for o in p["objects"]]} for p in t["parts"]]
    return f


# Of clips of these kinds past the first hundred, only what they alone can tell is asked.
ALONE = {"pattern": {"pattern", "caption"}, "text": {"number", "word"}, "cut": {"event", "frame", "caption"}}


def asked(t):
    """[(attribute, question, answer)], without repeats; sizes only where the clip has one."""
    rng = np.random.default_rng(sum(map(ord, t["file"])))
    f = facts(t)
    out = []
    cap = questions.caption(f)
    if cap:
        out.append(("caption", "Describe this video.", cap))
    sizes = all(o["size"] for o in t["objects"])
    seen = set()
    for a, q, s, *_ in questions.turns(rng, f):
        if q not in seen and (a != "size" or sizes):
            seen.add(q)
            out.append((a, q, str(s)))
            if a in ("color", "shape") and " at the " not in q and rng.random() < .2:
                out.append(questions.choice(rng, a, q, s))
    out = [("number" if s.isdigit() else "word", q, s) if a == "text" else (a, q, s) for a, q, s in out]
    if t["kind"] in ALONE and int(re.search(r"\d+", t["file"])[0]) >= 100:
        out = [x for x in out if x[0] in ALONE[t["kind"]]]
    return out


def overlap(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, w) * max(0, h)
    area = sum(max(0, v[2] - v[0]) * max(0, v[3] - v[1]) for v in (a, b)) - both
    return both / area if area > 0 else 0


def numbers(s):
    m = re.search(r"\[\[(\d+), (\d+), (\d+), (\d+)\]\]", s)
    return [int(v) for v in m.groups()] if m else [0, 0, 0, 0]


def answers(args, clips):
    """Per clip the answers to asked(), by the trainer's forward."""
    net, tx = generate.load(args.model), T.Text(args.model)
    path = f"{args.clips}/frames.npz"
    cache = dict(np.load(path)) if os.path.exists(path) else {}
    missing = [t for t in clips if t["file"] not in cache]
    for t in missing:
        cache[t["file"]] = sampled(args.clips, t)
    if missing:
        np.savez_compressed(path, **cache)
    for t in clips:
        yield generate.answer(net, tx, cache[t["file"]], [q for _, q, _ in asked(t)])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("clips")
    p.add_argument("--model")
    p.add_argument("--asked")
    p.add_argument("--answers")
    p.add_argument("--limit", type=int, default=10**9, help="clips of each kind")
    p.add_argument("--wrong", action="store_true", help="print wrong answers")
    args = p.parse_args()
    torch.set_num_threads(1)
    clips, taken = [], collections.Counter()
    score, never = collections.defaultdict(list), collections.defaultdict(list)
    for line in open(f"{args.clips}/truth.jsonl"):
        t = json.loads(line)
        taken[t["kind"]] += 1
        if taken[t["kind"]] <= args.limit:
            clips.append(t)
    if args.asked:
        with open(args.asked, "w") as f:
            for t in clips:
                f.write(json.dumps({k: t[k] for k in ("file", "start", "duration", "frames")} | {"questions": [q for _, q, _ in asked(t)]}) + "\n")
        return
    if args.answers:
        known = {r["file"]: r["answers"] for r in map(json.loads, open(args.answers))}
        clips = [t for t in clips if t["file"] in known]
        replies = [known[t["file"]] for t in clips]
    else:
        replies = answers(args, clips)
    for t, got in zip(clips, replies):
        unseen = t["kind"] == "single" and scenes.held_out(*(t["objects"][0][k] for k in ("shape", "color", "action")))
        for (a, q, want), g in zip(asked(t), got):
            right = overlap(numbers(want), numbers(g)) if a == "box" else g == want
            for key in (f"{t['kind']} {a}", f"all {a}"):
                score[key].append(right)
            if unseen:
                never[a].append(right)
            if args.wrong and (right < .5):
                print(f"{t['file']} {a}: {q!r} -> {g!r}, not {want!r}")
    print(f"{'kind attribute':28} {'share':>7} {'count':>6}")
    for k, v in sorted(score.items()):
        print(f"{k:28} {np.mean(v):7.3f} {len(v):6}")
    for k, v in sorted(never.items()):
        print(f"{'never trained ' + k:28} {np.mean(v):7.3f} {len(v):6}")


if __name__ == "__main__":
    main()

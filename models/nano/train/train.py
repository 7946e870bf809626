# SPDX-License-Identifier: LGPL-2.1-or-later
"""Trains nano: the vision tower on dense labels, then projector and decoder with the tower fixed, then all of it.

    train.py --state DIR [--rows N] [--seed S] [--workers 2]      start, or go on from DIR
    train.py --state DIR --from MODEL                             start from a checkpoint folder's weights and count of rows
    train.py --state DIR --export MODEL                           write the averaged weights as a checkpoint folder

A row holds four frames (one clip of 4, or several shorter ones) packed with their questions. Two single-threaded workers share the
weights without locks (Hogwild), which keeps a busy machine busy; what each sees depends on seed, worker and step alone. With
--workers 1 the weights, too, are a function of the seed.
"""
import argparse
import collections
import json
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

import model as M
import questions
import scenes
import text as T

LR, DENSE_LR = 1e-3, 1e-3
DENSE_IMAGES = 80_000       # images of the dense pretraining
WARM = 40_000               # rows with the vision tower fixed
DECAY = 0.7                 # share of the rows after which the learning rate falls to zero
ROWS = 12                   # rows a step
LENGTH = {4: 192, 8: 320}   # tokens a row, by its frames
# How much likelier than others a question is to be among the few asked about a scene; a box is long and would rarely fit.
FAVOUR = {"motion": 8, "position": 8, "event": 4, "frame": 3, "shape": 2, "box": 4, "text": 3, "compare": 2, "countof": .7, "background": .3,
          "yesno": .3, "absent": .5, "foreign": .3, "count": .6}
# Frames of the samples in a row; the odd counts are those of a stream's last chunk.
FOUR = [(4,), (2, 2), (2, 1, 1), (1, 1, 1, 1), (3, 1)]
EIGHT = [(8,), (8,), (5, 3), (6, 2), (7, 1)]
SHAPE_CLASSES, COLOR_CLASSES, GROUND_CLASSES = 5 + len(scenes.CHARS), 1 + len(scenes.COLORS), len(scenes.GROUNDS)


def switch(name):
    """Parts of the recipe that NANO_OFF=a,b leaves out, to measure what they bring."""
    return name not in os.environ.get("NANO_OFF", "").split(",")


def branches(rng, scene, room, tx):
    """Token lists of (ids, is_answer, attribute) that each continue the scene's prompt; together at most `room` tokens."""
    f = questions.facts(scene)
    pool = questions.turns(rng, f)
    pool.sort(key=lambda t: -rng.random() ** (1 / FAVOUR.get(t[0], 1)))
    cap = questions.caption(f)
    if cap and rng.random() < (0.75 if f["kind"] != "several" else 0.45):
        pool.insert(0, ("caption", questions.pick(rng, questions.CAPTION), cap))
    out, asked = [], set()
    pool = [(t[0], t[1], str(t[2])) for t in pool]
    while pool:
        turns = [pool.pop(0)]
        if rng.random() < 0.12 and pool and turns[0][0] != "box":
            turns.append(pool.pop(0))
        if turns[0][0] in ("color", "shape") and len(turns) == 1 and rng.random() < 0.08 and " at the " not in turns[0][1]:
            turns = [questions.choice(rng, *turns[0])]
        if any(q in asked for _, q, _ in turns):
            continue
        asked |= {q for _, q, _ in turns}
        ids, answer, attr = [], [], []
        for i, (a, q, s) in enumerate(turns):
            ask = tx.ids((T.again if i else T.ask)(q))
            ans = tx.ids(s) + [tx.end]
            ids += ask + ans
            answer += [0] * len(ask) + [len(ans)] * len(ans)
            attr += [""] * len(ask) + [a] * len(ans)
        if len(ids) > room:
            if room < 14:
                break
            continue
        room -= len(ids)
        out.append((ids, answer, attr))
    return out


def row(rng, plan, progress, tx):
    """One packed row. plan: frames of each sample."""
    length = LENGTH[sum(plan)]
    r = {k: np.zeros(length, np.int64) for k in ("ids", "pos", "seg", "br")}
    r |= {"target": np.full(length, -100), "weight": np.zeros(length, np.float32), "images": [], "frames": [], "labels": [], "tags": []}
    at, share = 0, (length - sum(len(tx.ids(T.open_prompt(n, T.SYSTEM))) for n in plan)) // len(plan)
    spare = 0
    for s, n in enumerate(plan):
        scene = scenes.sample(rng, n, progress, T.WORDS)
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
        for b, (ids, answer, attr) in enumerate(branches(rng, scene, share + spare, tx)):
            m = len(ids)
            r["ids"][at:at + m], r["seg"][at:at + m], r["br"][at:at + m] = ids, s + 1, b + 1
            r["pos"][at:at + m] = len(start) + np.arange(m)
            # Predicted one position earlier. Square averaging: a response of x tokens weighs sqrt(x), not x.
            for i in range(m):
                if answer[i]:
                    r["target"][at + i - 1] = ids[i]
                    r["weight"][at + i - 1] = answer[i] ** -0.5 if switch("square") else 1
            for a in dict.fromkeys(attr):
                if a:
                    r["tags"].append((a, [at + i - 1 for i in range(m) if attr[i] == a]))
            at, used = at + m, used + m
        spare += share - used
    return r


def batch(seed, progress, tx):
    rng = np.random.default_rng(seed)
    if rng.random() < 0.04:
        plans = [EIGHT[i] for i in rng.integers(len(EIGHT), size=ROWS // 2)]
    else:
        plans = [FOUR[i] for i in rng.choice(len(FOUR), ROWS, p=(.62, .1, .08, .12, .08))]
    rows = [row(rng, p, progress, tx) for p in plans]
    length = len(rows[0]["ids"])
    t = {k: torch.from_numpy(np.stack([r[k] for r in rows])) for k in ("ids", "pos", "seg", "br", "target", "weight")}
    t["images"] = torch.tensor([i * length + p for i, r in enumerate(rows) for p in r["images"]])
    t["frames"] = torch.from_numpy(np.concatenate([f for r in rows for f in r["frames"]]))
    t["labels"] = [torch.from_numpy(np.concatenate([x[k] for r in rows for x in r["labels"]])) for k in ("shape", "color", "ground", "box")]
    t["tags"] = [(a, [i * length + p for p in ps]) for i, r in enumerate(rows) for a, ps in r["tags"]]
    return t


def block_mask(t):
    """Causal, within a sample, and not between two branches of it."""
    seg, br = t["seg"], t["br"]
    ok = (seg[:, :, None] == seg[:, None]) & ((br[:, None] == 0) | (br[:, :, None] == br[:, None]))
    ok &= torch.ones(seg.shape[1], seg.shape[1], dtype=torch.bool).tril()
    return torch.zeros(ok.shape, dtype=torch.bfloat16).masked_fill(~ok, -1e4)[:, None]


def dense_loss(net, dense, frames, labels, fixed=False):
    """The tower's patches, and the loss of its dense heads; with a fixed tower only the heads learn."""
    with torch.set_grad_enabled(not fixed):
        patches = net.patches(frames)
    shape, color, ground, box = labels
    return patches, dense(patches, shape.long(), color.long(), ground.long(), box)


def answer_loss(net, visual, t):
    h = net.hidden(visual, t["ids"], t["images"], t["pos"], block_mask(t)).flatten(0, 1)
    at = (t["target"].flatten() >= 0).nonzero().squeeze(1)
    logits = net.language_model.lm_head(h[at]).float()
    target, weight = t["target"].flatten()[at], t["weight"].flatten()[at]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    right = torch.zeros(h.shape[0], dtype=torch.bool)
    right[at] = logits.argmax(-1) == target
    return loss, right


def optimizer(params):
    decayed = [p for p in params if p.dim() >= 2]
    rest = [p for p in params if p.dim() < 2]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=LR, betas=(0.9, 0.98), fused=True)


def step(opt, params, loss, lr):
    loss.backward()
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    for g in opt.param_groups:
        g["lr"] = lr
    opt.step()
    opt.zero_grad(set_to_none=True)


def save(path, value):
    torch.save(value, path + ".new")
    os.replace(path + ".new", path)


def worker(rank, args, net, dense, ema, done, steps):
    """done: shared [images, rows]; steps: shared steps a worker. Worker 0 keeps the average and the log."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tx = T.Text(args.model)
    log = open(f"{args.state}/log{rank}.txt", "a", buffering=1)
    heads = list(dense.parameters())
    vit = list(net.vision_model.parameters()) + list(net.mlp1.parameters()) + heads
    every = list(net.parameters()) + heads
    state = f"{args.state}/optimizer{rank}.pt"
    opt, phase = None, None

    def opened(name, params):
        o = optimizer(params)
        if os.path.exists(state):
            kept = torch.load(state)
            if kept["phase"] == name:
                o.load_state_dict(kept["optimizer"])
        return o, name

    def keep():
        # The counters are the worker's own: a restart repeats at most the steps since this.
        save(state, {"phase": phase, "optimizer": opt.state_dict()})
        if rank == 0:
            save(f"{args.state}/state.pt", {"net": net.state_dict(), "dense": dense.state_dict(), "ema": ema, "done": list(done),
                                            "steps": list(steps), "seed": args.seed})

    n_img, t0, seen, losses = 16, time.time(), collections.defaultdict(list), []
    last = t0
    while switch("dense") and done[0] < DENSE_IMAGES:
        if phase != "dense":
            opt, phase = opened("dense", vit)
        rng = np.random.default_rng((args.seed, rank, steps[rank], 0))
        got = [scenes.render(rng, scenes.still_life(rng, T.WORDS), 0.5) for _ in range(n_img)]
        frames = torch.from_numpy(np.concatenate([g[0] for g in got]))
        labels = [torch.from_numpy(np.concatenate([g[1][k] for g in got])) for k in ("shape", "color", "ground", "box")]
        with torch.autocast("cpu", torch.bfloat16):
            patches, loss = dense_loss(net, dense, frames, labels)
            visual = net.visual(patches)
        place = M.place_loss(visual, labels[0], labels[3])
        lr = DENSE_LR * min(1, (steps[rank] + 1) / 100) * max(0.1, 1 - done[0] / DENSE_IMAGES)
        step(opt, vit, loss + place, lr)
        steps[rank] += 1
        with done.get_lock():
            done[0] += n_img
        losses.append(loss.item())
        with torch.no_grad():
            on = (labels[0] > 0) & (labels[0] <= len(scenes.SHAPES))
            got = dense.head(dense.norm(patches.float()))[..., :SHAPE_CLASSES].argmax(-1)
            seen["place"].append(place.item())
            seen["shape"].append((got == labels[0])[on].float().mean().item())
        if steps[rank] % 100 == 0:
            log.write(f"dense {done[0]} loss {np.mean(losses):.3f} shape {np.mean(seen['shape']):.3f} place {np.mean(seen['place']):.3f} {time.time() - t0:.0f}s\n")
            losses, seen = [], collections.defaultdict(list)
        if time.time() - last > 120:
            keep()
            last = time.time()

    # A tower fresh from the dense stage has nothing in common with what was averaged before.
    since = 0
    if phase == "dense" or not os.path.exists(state) or torch.load(state)["phase"] == "dense":
        since = done[1]
        if rank == 0:
            for name, p in net.state_dict().items():
                ema[name].copy_(p)
    opt, phase = opened("all", every)
    while done[1] < args.rows:
        progress = done[1] / args.rows
        t = batch((args.seed, rank, steps[rank], 1), done[1] / (args.goal or args.rows), tx)
        # New heads, too, must first learn what the tower says before they may teach it.
        warm = switch("warm") and (done[1] < WARM or done[1] - since < 2000)
        with torch.autocast("cpu", torch.bfloat16):
            patches, aux = dense_loss(net, dense, t["frames"], t["labels"], warm)
            visual = net.visual(patches)
            loss, right = answer_loss(net, visual, t)
        place = M.place_loss(visual, t["labels"][0], t["labels"][3])
        lr = LR * min(1, (done[1] - since + 1) / 2000) * min(1, (1 - progress) / (1 - DECAY))
        step(opt, every, loss + 0.5 * place + 0.2 * aux, max(lr, 1e-6))
        steps[rank] += 1
        with done.get_lock():
            done[1] += len(t["ids"])
        losses.append(loss.item())
        for a, at in t["tags"]:
            seen[a].append(bool(right[at].all()))
        if rank == 0 and steps[0] % 10 == 0:
            k = min(0.99, 1 - 10 / (10 + (done[1] - since) / 120))
            for name, p in net.state_dict().items():
                ema[name].lerp_(p, 1 - k)
        if steps[rank] % 50 == 0:
            rates = " ".join(f"{a} {np.mean(v):.3f}" for a, v in sorted(seen.items()))
            log.write(f"rows {done[1]} loss {np.mean(losses):.4f} aux {aux.item():.2f} place {place.item():.3f} lr {lr:.2e} {time.time() - t0:.0f}s | {rates}\n")
            losses, seen = [], collections.defaultdict(list)
        if time.time() - last > 180:
            keep()
            last = time.time()
    keep()


def config(vocab, tx):
    c = M.CFG
    return {
        "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "torch_dtype": "float16", "tie_word_embeddings": False,
        "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": c["image"], "min_dynamic_patch": 1, "max_dynamic_patch": 1,
        "pad2square": False, "ps_version": "v2", "select_layer": -1, "template": "internvl2_5", "system_message": T.SYSTEM,
        "use_thumbnail": True, "use_backbone_lora": 0, "use_llm_lora": 0,
        "vision_config": {
            "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_size": c["vit"], "num_hidden_layers": c["vit_layers"],
            "num_attention_heads": c["vit_heads"], "intermediate_size": c["vit_ffn"], "image_size": c["image"], "patch_size": c["patch"],
            "num_channels": 3, "qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm", "layer_norm_eps": 1e-6,
            "hidden_act": "gelu", "initializer_factor": 1.0, "drop_path_rate": 0.0, "attention_dropout": 0.0, "dropout": 0.0, "use_flash_attn": False},
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": vocab, "hidden_size": c["llm"],
            "num_hidden_layers": c["llm_layers"], "num_attention_heads": c["heads"], "num_key_value_heads": c["kv_heads"],
            "intermediate_size": c["ffn"], "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": c["theta"], "max_position_embeddings": 2048,
            "bos_token_id": None, "eos_token_id": tx.end, "pad_token_id": tx.tok.token_to_id("<|endoftext|>"), "attention_dropout": 0.0,
            "initializer_range": 0.02, "tie_word_embeddings": False, "use_cache": True, "use_sliding_window": False, "torch_dtype": "float16"}}


def export(args):
    tx = T.Text(args.model)
    kept = torch.load(f"{args.state}/state.pt")
    json.dump(config(tx.vocab, tx), open(f"{args.export}/config.json", "w"), indent=2)
    json.dump({"eos_token_id": tx.end, "do_sample": False}, open(f"{args.export}/generation_config.json", "w"), indent=2)
    path = f"{args.export}/model.safetensors"
    save_file({k: v.half().contiguous() for k, v in kept["net" if args.last else "ema"].items()}, path,
              {"format": "pt", "images": str(kept["done"][0]), "rows": str(kept["done"][1])})
    os.chmod(path, 0o644)


def main():
    p = argparse.ArgumentParser()
    here = os.path.dirname(os.path.abspath(__file__))
    p.add_argument("--state", required=True)
    p.add_argument("--model", default=os.path.dirname(here), help="folder with the tokenizer")
    p.add_argument("--rows", type=int, default=200_000)
    p.add_argument("--goal", type=int, help="rows over which the mixture gets harder, if the rate is to end sooner than that")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--export", metavar="DIR")
    p.add_argument("--last", action="store_true", help="export the last weights, not their average: once the learning rate has reached zero")
    p.add_argument("--from", dest="origin", metavar="DIR")
    args = p.parse_args()
    if args.export:
        return export(args)
    os.makedirs(args.state, exist_ok=True)
    torch.manual_seed(args.seed)
    net = M.Nano(T.Text(args.model).vocab)
    dense = M.Dense(SHAPE_CLASSES, COLOR_CLASSES, GROUND_CLASSES)
    ema = {k: v.clone() for k, v in net.state_dict().items()}
    mp = torch.multiprocessing.get_context("spawn")
    done, steps = mp.Array("q", 2), mp.Array("q", args.workers)
    if os.path.exists(f"{args.state}/state.pt"):
        kept = torch.load(f"{args.state}/state.pt")
        net.load_state_dict(kept["net"])
        dense.load_state_dict(kept["dense"])
        ema = kept["ema"]
        done[:], steps[:] = kept["done"], kept["steps"]
    elif args.origin:
        with safe_open(f"{args.origin}/model.safetensors", "pt") as f:
            net.load_state_dict({k: f.get_tensor(k).float() for k in f.keys()})
            done[:] = [int(f.metadata()["images"]), int(f.metadata()["rows"])]
        # Steps seed the data: past those already seen.
        steps[:] = [sum(done) // ROWS] * args.workers
        ema = {k: v.clone() for k, v in net.state_dict().items()}
    for t in [*net.state_dict().values(), *dense.state_dict().values(), *ema.values()]:
        t.share_memory_()
    others = [mp.Process(target=worker, args=(r, args, net, dense, ema, done, steps)) for r in range(1, args.workers)]
    for o in others:
        o.start()
    worker(0, args, net, dense, ema, done, steps)
    for o in others:
        o.join()


if __name__ == "__main__":
    sys.exit(main())

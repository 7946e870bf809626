# SPDX-License-Identifier: LGPL-2.1-or-later
"""Trains nano: the vision tower on dense labels, then projector and decoder with the tower fixed, then all of it.

    train.py --state DIR [--rows N] [--seed S] [--workers 2]      start, or go on from DIR
    train.py --state DIR --export MODEL [--last]                  write the averaged, or the last, weights as a checkpoint folder

A row holds four frames (one clip of 4, or several shorter ones) packed with their questions. Two single-threaded workers share the
weights without locks (Hogwild), which keeps a busy machine busy; what each sees depends on seed, worker and step alone. With
--workers 1 the weights, too, are a function of the seed. The course up to its last 70 %, where the learning rate falls to zero, is the
same for every N: an unfinished run may go on with another. `--again N` goes on for N rows more, with what was worst favoured.
"""
import argparse
import collections
import copy
import json
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import heads as H
import model as M
import optim
import packing
import text as T
from packing import switch

DENSE_LR, LR = 1e-3, 1.5e-3
DENSE_IMAGES = 240_000      # images of the dense pretraining
BATCH_IMAGES = 32
WARM = 4_000                # rows with the vision tower fixed
GUIDED = 14_000             # rows after which answers outweigh the heads: what they ask for is there by then, and has to be spoken of
VISION = 0.4                # of the highest learning rate, for the tower once it is pretrained: at the full rate it forgets
DECAY = 0.3                 # share of the rows after which the learning rate falls to zero
AGAIN, VISION_AGAIN = 0.7, 0.3      # of the highest learning rate, for the second course, which begins there and falls to zero


def compiled(net):
    """Layers one by one: the same code serves all of a kind. Without a C++ compiler they run as they are, slower."""
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = 32
    for layer in [*net.vision_model.encoder.layers, *net.language_model.model.layers]:
        layer.compile(dynamic=False)


def prepare(net, again):
    """Compiles for every shape that comes, into the cache that the other workers read."""
    for n in (BATCH_IMAGES, 4 * packing.ROWS, *[4 * packing.ROWS + packing.STILLS] * again):
        frames = torch.zeros(n, M.CFG["image"], M.CFG["image"], 3, dtype=torch.uint8)
        if switch("warm") and n != BATCH_IMAGES:
            with torch.no_grad():
                net.patches(frames)
        net.patches(frames).sum().backward()
    for frames, rows in ((4, packing.ROWS), (8, packing.ROWS // 2)):
        ids = torch.zeros(rows, packing.LENGTH[frames], dtype=torch.long)
        at = torch.arange(4 * packing.ROWS * M.VISUAL)
        visual = torch.zeros(4 * packing.ROWS, M.VISUAL, M.CFG["llm"], dtype=torch.bfloat16, requires_grad=True)
        net.layers(visual, ids, at, ids, packing.block_mask({"seg": ids, "br": ids}))[-1].sum().backward()
    for p in net.parameters():
        p.grad = None


@torch.no_grad()
def whiten(net, seed):
    """Patch embedding from the data: the strongest directions of patches, brought to equal variance. From random weights letters, a small part of
    a patch's variance, took many times as many images to learn."""
    frames, _ = packing.stills((seed, 1 << 20), 1500)
    x = M.cut(M.normalised(frames)).flatten(0, 1)
    mean = x.mean(0)
    x = x[torch.randperm(len(x))[:60_000]] - mean
    value, vector = torch.linalg.eigh(x.t() @ x / len(x))
    w = net.vision_model.embeddings.patch_embedding
    n = w.weight.shape[0] - M.PLACE
    w.weight.zero_()
    w.weight[:n] = (vector[:, -n:] / (value[-n:] + 1e-2).sqrt()).t().view_as(w.weight[:n])
    w.bias.copy_(-(w.weight.flatten(1) @ mean))


def answer_loss(net, last, t):
    h = last.flatten(0, 1)
    at = (t["target"].flatten() >= 0).nonzero().squeeze(1)
    logits = net.language_model.lm_head(h[at]).float()
    target, weight = t["target"].flatten()[at], t["weight"].flatten()[at]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    right = torch.zeros(h.shape[0], dtype=torch.bool)
    right[at] = logits.argmax(-1) == target
    return loss, right


def save(path, value):
    torch.save(value, path + ".new")
    os.replace(path + ".new", path)


class Log:
    def __init__(self, path):
        self.file, self.seen, self.start = open(path, "a", buffering=1), collections.defaultdict(list), time.time()

    def add(self, **values):
        for k, v in values.items():
            self.seen[k].append(float(v.detach()) if torch.is_tensor(v) else v)

    def write(self, head):
        means = " ".join(f"{k} {np.nanmean(v):.3f}" for k, v in self.seen.items())
        self.file.write(f"{head} {time.time() - self.start:.0f}s cpu {time.process_time():.0f}s | {means}\n")
        self.seen.clear()


def worker(rank, args, net, heads, ema, done, steps, ready):
    """net, heads: shared f32 weights; done: shared [images, rows]; steps: shared steps a worker. Worker 0 keeps the average and the state."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    tx = T.Text(args.model)
    log = Log(f"{args.state}/log{rank}.txt")
    mine = copy.deepcopy(net).bfloat16()
    mine_heads = copy.deepcopy(heads).bfloat16()
    for p in [*mine.parameters(), *mine_heads.parameters()]:
        p.requires_grad_(True)
    # The first to come compiles; the others find it done.
    while rank and not ready.value:
        time.sleep(1)
    if switch("compile"):
        compiled(mine)
        if rank == 0:
            prepare(mine, args.again > 0)
    ready.value = 1
    both = lambda n, h: {**dict(n.named_parameters()), **{"heads." + k: p for k, p in h.named_parameters()}}    # noqa: E731
    opt = optim.Mixed(both(net, heads), both(mine, mine_heads), switch("muon"))
    state = f"{args.state}/optimizer{rank}.pt"
    if os.path.exists(state):
        opt.state = torch.load(state)

    def keep():
        # A restart repeats at most the steps since this.
        save(state, opt.state)
        if rank == 0:
            save(f"{args.state}/state.pt", {"net": net.state_dict(), "heads": heads.state_dict(), "ema": ema, "done": list(done),
                                            "steps": list(steps), "seed": args.seed})

    last = time.time()
    while switch("dense") and done[0] < args.images:
        frames, labels = packing.stills((args.seed, rank, steps[rank], 0), BATCH_IMAGES)
        patches = mine.patches(frames)
        on_patch, on_token, hits = mine_heads.vision(patches, mine.visual(patches), labels)
        (on_patch + on_token).backward()
        opt.step(DENSE_LR * min(1, (steps[rank] + 1) / 50) * max(0.1, 1 - done[0] / args.images))
        steps[rank] += 1
        with done.get_lock():
            done[0] += BATCH_IMAGES
        log.add(patch=on_patch, token=on_token, **hits)
        if steps[rank] % 50 == 0:
            log.write(f"dense {done[0]}")
        if time.time() - last > 120:
            keep()
            last = time.time()

    if rank == 0 and done[1] == 0:
        for name, p in net.state_dict().items():
            ema[name].copy_(p)
    while done[1] < args.rows + args.again:
        n, course, again = done[1], done[1] * args.pace, done[1] >= args.rows
        t = packing.batch((args.seed, rank, steps[rank], 1), course, tx, again)
        fixed = switch("warm") and course < WARM
        with torch.set_grad_enabled(not fixed):
            patches = mine.patches(t["frames"])
        visual = mine.visual(patches)
        in_rows = len(t["ends"])
        layers = mine.layers(visual[:in_rows], t["ids"], t["images"], t["pos"], packing.block_mask(t))
        loss, right = answer_loss(mine, layers[-1], t)
        on_patch, on_token, hits = mine_heads.vision(patches, visual, t["labels"])
        deep, deep_hits = mine_heads.decoder(layers, t["images"], t["ends"], t["asks"], t["ask_xy"], t["ask_weight"], t["ask_number"],
                                             {k: v[:in_rows] for k, v in t["labels"].items()})
        guide = 1 if course < GUIDED else 0.25
        total = loss + 0.2 * (0.5 + 0.5 * guide) * (on_patch + on_token)
        if switch("deep"):
            # Finding the object that is asked about, among several, comes last and needs the most help.
            number = deep.pop("number")
            total = total + 0.2 * guide * sum(deep.values()) + (0.5 if course >= GUIDED else 0) * deep["asked"] + (0.5 if again else 0) * number
        total.backward()
        if again:
            lr, tower = AGAIN * LR * (1 - (n - args.rows) / args.again), VISION_AGAIN * LR
        else:
            lr, tower = LR * min(1, (n + 1) / 600) * min(1, (1 - n / args.rows) / (1 - DECAY)), VISION * LR
        opt.step(max(lr, 1e-6), min(1, tower / max(lr, 1e-6)))
        steps[rank] += 1
        with done.get_lock():
            done[1] += len(t["ids"])
        log.add(loss=loss, patch=on_patch, token=on_token, **deep, **{"patch_" + k: v for k, v in hits.items()}, **{"deep_" + k: v for k, v in deep_hits.items()})
        for a, at in sorted(t["tags"]):
            log.add(**{a: right[at].all()})
        if rank == 0 and steps[0] % 10 == 0:
            k = min(0.99, 1 - 10 / (10 + done[1] / 160))
            for name, p in net.state_dict().items():
                ema[name].lerp_(p, 1 - k)
        if steps[rank] % 50 == 0:
            log.write(f"rows {done[1]} lr {lr:.2e}")
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
              {"format": "pt", "images": str(kept["done"][0]), "rows": str(kept["done"][1]), "seed": str(kept["seed"])})
    os.chmod(path, 0o644)


def main():
    p = argparse.ArgumentParser()
    here = os.path.dirname(os.path.abspath(__file__))
    p.add_argument("--state", required=True)
    p.add_argument("--model", default=os.path.dirname(here), help="folder with the tokenizer")
    p.add_argument("--rows", type=int, default=72_000)
    p.add_argument("--again", type=int, default=0, metavar="N", help="rows of a second course")
    p.add_argument("--images", type=int, default=DENSE_IMAGES)
    p.add_argument("--pace", type=float, default=1, help="stages of the course and of the mixture come so many times sooner (short runs that compare)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--export", metavar="DIR")
    p.add_argument("--last", action="store_true", help="export the last weights, not their average: once the learning rate has reached zero")
    args = p.parse_args()
    if args.export:
        return export(args)
    os.makedirs(args.state, exist_ok=True)
    torch.manual_seed(args.seed)
    net = M.Nano(T.Text(args.model).vocab)
    heads = H.Heads()
    if not os.path.exists(f"{args.state}/state.pt") and switch("white"):
        whiten(net, args.seed)
    ema = {k: v.clone() for k, v in net.state_dict().items()}
    mp = torch.multiprocessing.get_context("spawn")
    done, steps, ready = mp.Array("q", 2), mp.Array("q", args.workers), mp.Value("b")
    if os.path.exists(f"{args.state}/state.pt"):
        kept = torch.load(f"{args.state}/state.pt")
        net.load_state_dict(kept["net"])
        heads.load_state_dict(kept["heads"])
        ema = kept["ema"]
        done[:] = kept["done"]
        n = min(args.workers, len(kept["steps"]))
        steps[:n] = kept["steps"][:n]
    for t in [*net.state_dict().values(), *heads.state_dict().values(), *ema.values()]:
        t.share_memory_()
    others = [mp.Process(target=worker, args=(r, args, net, heads, ema, done, steps, ready)) for r in range(1, args.workers)]
    for o in others:
        o.start()
    worker(0, args, net, heads, ema, done, steps, ready)
    for o in others:
        o.join()


if __name__ == "__main__":
    sys.exit(main())

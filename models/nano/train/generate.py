# SPDX-License-Identifier: LGPL-2.1-or-later
"""Greedy answers from an exported checkpoint, in fp32, with the trainer's own forward."""
import torch
from safetensors.torch import load_file

import model as M
import text as T


def load(folder):
    weights = load_file(f"{folder}/model.safetensors")
    net = M.Nano(weights["language_model.lm_head.weight"].shape[0])
    net.load_state_dict({k: v.float() for k, v in weights.items()})
    return net.eval()


def causal(n):
    return torch.full((n, n), -1e9).triu(1)[None, None]


@torch.no_grad()
def logits(net, frames, ids, tx):
    """[1, L] ids -> [1, L, V]."""
    at = (ids[0] == tx.context).nonzero().squeeze(1)
    h = net.hidden(net.visual(net.patches(frames)), ids, at, torch.arange(ids.shape[1])[None], causal(ids.shape[1]))
    return net.language_model.lm_head(h)


@torch.no_grad()
def answer(net, tx, frames, questions, limit=48, whole=None):
    """Answers to several questions about the same frames (u8 [n, 112, 112, 3]); their common prompt is read once."""
    start = tx.ids(T.open_prompt(len(frames)))
    asks = [tx.ids(T.ask(q)) for q in questions] if whole is None else [tx.tok.encode(w, add_special_tokens=False).ids[len(start):] for w in whole]
    caches = [[] for _ in range(M.CFG["llm_layers"])]
    ids, p, b = torch.tensor([start]), len(start), len(asks)
    at = (ids[0] == tx.context).nonzero().squeeze(1)
    net.hidden(net.visual(net.patches(torch.as_tensor(frames))), ids, at, torch.arange(p)[None], causal(p), caches)
    for c in caches:
        c[:] = [t.expand(b, -1, -1, -1) for t in c]
    # Questions are padded at their end; padding stays in the cache and is masked for good.
    m = max(map(len, asks))
    length = torch.tensor([len(a) for a in asks])
    ids = torch.tensor([a + [tx.end] * (m - len(a)) for a in asks])
    valid = torch.cat([torch.ones(b, p), (torch.arange(m) < length[:, None]).float()], 1)
    mask = torch.cat([torch.zeros(1, 1, m, p), causal(m)], -1) + (1 - valid)[:, None, None] * -1e9
    h = net.hidden(None, ids, None, p + torch.arange(m).expand(b, m), mask, caches)[torch.arange(b), length - 1]
    out, live, pos = [[] for _ in asks], torch.ones(b, dtype=torch.bool), p + length
    for _ in range(limit):
        best = net.language_model.lm_head(h).argmax(-1)
        live &= best != tx.end
        for i in live.nonzero().squeeze(1).tolist():
            out[i].append(best[i].item())
        if not live.any():
            break
        valid = torch.cat([valid, torch.ones(b, 1)], 1)
        h = net.hidden(None, best[:, None], None, pos[:, None], ((1 - valid) * -1e9)[:, None, None], caches)[:, 0]
        pos = pos + 1
    return [tx.tok.decode(o, skip_special_tokens=False) for o in out]

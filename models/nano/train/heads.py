# SPDX-License-Identifier: LGPL-2.1-or-later
"""Heads that exist only in training and say, early in the network, what later layers have to build on.

On a patch: what covers it. On a visual token, after the projector: the object on it, and where that is. On each frame's </img>, after the
decoder's second layer: what the frame holds; on the visual tokens there, how the object on them has moved. On </img> after the third layer:
what has happened so far. Before an answer about one object, after the third layer: where that object is; before each digit of a
box, the number that is being written. Coordinates are classes, spread
linearly over the two nearest of BINS; as numbers they were never learned.
"""
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import model as M
import scenes

BINS = 33
NONE = -100                 # no label
CHARS = 1 + len(scenes.CHARS)
SHAPES, COLORS, GROUNDS = 1 + len(scenes.SHAPES), 1 + len(scenes.COLORS), len(scenes.GROUNDS)
MOVES = len(scenes.MOVES)
# What has happened: the actions, a cut, nothing to be seen yet. In which frame: 0 for none.
ACTS, FRAMES = len(scenes.ACTIONS) + 2, 9
SLOTS = 4                   # characters of a word
NUMBERS = 101               # of a box: 0, 10, … 1000
LETTERS = 2.5               # weight of letters on patches and tokens: they come last

PATCH = {"shape": SHAPES, "color": COLORS, "ground": GROUNDS, "box": 4, "char": CHARS, "slot": SLOTS + 1}
TOKEN = {"shape": SHAPES, "color": COLORS, "owner": 2, "xy": 6 * BINS, "char": 2 * CHARS, "slot": 2 * (SLOTS + 1)}
FRAME = {"ground": GROUNDS, "count": 5, "shapes": 4 * 4, "colors": 8 * 3, "shape": SHAPES, "color": COLORS, "xy": 6 * BINS, "text": SLOTS * CHARS}
SO_FAR = {"act": ACTS, "at": FRAMES}


def labels_of(t):
    """Labels of frames as scenes.render gives them -> targets of the heads, all tensors with the frames first."""
    out = {k: torch.from_numpy(np.concatenate([x[k] for x in t])).long() for k in ("shape", "color", "ground", "char", "slot", "text", "act", "at")}
    out["box"] = torch.from_numpy(np.concatenate([x["box"] for x in t]))
    objs = torch.from_numpy(np.concatenate([x["objs"] for x in t]))             # [F, 4, 10]
    cover = torch.from_numpy(np.concatenate([x["cover"] for x in t])).float()   # [F, 64, 4]
    here, shape, color, xy, move = objs[..., 0] > 0, objs[..., 1].long(), objs[..., 2].long(), objs[..., 3:9], objs[..., 9].long()
    f = len(objs)

    # Per visual token: the object that covers most of it, and whether some object's centre lies in it.
    h = M.GRID // 2
    most, which = cover.view(f, h, 2, h, 2, 4).sum((2, 4)).view(f, h * h, 4).max(-1)
    covered = most > 0.25
    out["t_shape"], out["t_color"] = (shape.gather(1, which) + 1) * covered, (color.gather(1, which) + 1) * covered
    i = torch.arange(h * h)
    own = torch.stack([(i % h + 0.5) / h, (i // h + 0.5) / h], 1)
    place = xy.gather(1, which[..., None].expand(-1, -1, 6))
    out["t_xy"] = torch.where(covered[..., None], place, own.repeat(1, 3)).clamp(0, 1)
    out["t_move"] = torch.where(covered, move.gather(1, which), NONE)
    cell = (xy[..., 1].clamp(0, 0.999) * h).long() * h + (xy[..., 0].clamp(0, 0.999) * h).long()
    out["t_owner"] = torch.zeros(f, h * h + 1, dtype=torch.long).scatter_(1, torch.where(here, cell, h * h), 1)[:, :-1]
    for k in ("char", "slot"):
        out["t_" + k] = out[k].view(f, h, 2, h, 2).amax(2).reshape(f, h * h, 2)

    # Per frame: how many of what, and where the only object is.
    n = here.sum(1)
    one = n == 1
    first = here.float().argmax(1, keepdim=True)
    out["f_ground"] = out["ground"][:, 0]
    out["f_count"] = n.clamp(max=4)
    out["f_shapes"] = torch.stack([(here & (shape == s)).sum(1) for s in range(4)], 1).clamp(max=3)
    out["f_colors"] = torch.stack([(here & (color == c)).sum(1) for c in range(8)], 1).clamp(max=2)
    out["f_shape"] = torch.where(one, shape.gather(1, first)[:, 0] + 1, torch.where(n == 0, 0, NONE))
    out["f_color"] = torch.where(one, color.gather(1, first)[:, 0] + 1, torch.where(n == 0, 0, NONE))
    out["f_xy"] = xy.gather(1, first[..., None].expand(-1, -1, 6))[:, 0].clamp(0, 1)
    out["f_one"] = one
    return out


def cross(x, y):
    """Mean over what has a label."""
    return F.cross_entropy(x.flatten(0, -2), y.flatten(), ignore_index=NONE, reduction="sum") / ((y != NONE).sum() + 1)


def halves(x, y):
    """Nothing and something weigh alike, however rare something is."""
    e = F.cross_entropy(x.flatten(0, -2), y.flatten(), reduction="none")
    some = (y.flatten() > 0).float()
    return (e * some).sum() / (some.sum() + 4) + (e * (1 - some)).sum() / ((1 - some).sum() + 4)


def spread(x, v, w):
    """Cross-entropy of x [..., k*BINS] with v [..., k] in 0..1, spread over two bins; w [...] weighs."""
    x = x.unflatten(-1, (v.shape[-1], BINS)).log_softmax(-1)
    u = v * (BINS - 1)
    lo = u.long().clamp(max=BINS - 2)
    b = u - lo
    e = -(x.gather(-1, lo[..., None])[..., 0] * (1 - b) + x.gather(-1, lo[..., None] + 1)[..., 0] * b).mean(-1)
    return (e * w).sum() / (w.sum() + 1)


def parts(x, sizes):
    return dict(zip(sizes, x.float().split(list(sizes.values()), -1)))


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        c, h = M.CFG["vit"], M.CFG["llm"]
        self.patch = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, sum(PATCH.values())))
        self.token = nn.Linear(h, sum(TOKEN.values()))
        self.frame = nn.Linear(h, sum(FRAME.values()))
        self.move = nn.Linear(h, MOVES)
        self.so_far = nn.Linear(h, sum(SO_FAR.values()))
        self.asked = nn.Linear(h, 6 * BINS)
        self.number = nn.Linear(h, NUMBERS)

    @staticmethod
    def normal(x):
        """As the next layer's norm will see it."""
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)

    def vision(self, patches, visual, t):
        """Losses on patches [F, 64, C] and visual tokens [F, 16, H], and how often shapes and characters are right."""
        p = parts(self.patch(patches), PATCH)
        hit = (t["shape"] > 0) & (t["box"][..., 2] > 0)
        off = ((p["box"] - t["box"]).abs().sum(-1) * hit).sum() / (hit.sum() * 4 + 1)
        on_patch = (halves(p["shape"], t["shape"]) + halves(p["color"], t["color"]) + 0.5 * cross(p["ground"], t["ground"]) + 2 * off
                    + LETTERS * halves(p["char"], t["char"]) + 0.5 * halves(p["slot"], t["slot"]))
        v = parts(self.token(self.normal(visual)), TOKEN)
        some = (t["t_shape"] > 0).float()
        on_token = (halves(v["shape"], t["t_shape"]) + halves(v["color"], t["t_color"]) + halves(v["owner"], t["t_owner"])
                    + 0.5 * spread(v["xy"], t["t_xy"], some) + 0.1 * spread(v["xy"], t["t_xy"], 1 - some)
                    + LETTERS * halves(v["char"].unflatten(-1, (2, CHARS)), t["t_char"]) + 0.5 * halves(v["slot"].unflatten(-1, (2, SLOTS + 1)), t["t_slot"]))
        with torch.no_grad():
            hits = {k: (p[k].argmax(-1) == t[k])[t[k] > 0].float().mean().item() for k in ("shape", "char")}
        return on_patch, on_token, hits

    def decoder(self, layers, image_at, end_at, ask_at, ask_xy, ask_weight, ask_number, t):
        """Losses on hidden states, and what is right of them. image_at [F*16], end_at [F], ask_at [A]: flat positions; ask_xy [A, 6];
        ask_number [A]: NONE where no number follows."""
        two, three = layers[1].flatten(0, 1), layers[2].flatten(0, 1)
        f = parts(self.frame(self.normal(two[end_at])), FRAME)
        one, text = t["f_one"].float(), t["text"]
        # Every frame has empty slots; those of a text weigh more.
        read = F.cross_entropy(f["text"].unflatten(-1, (SLOTS, CHARS)).flatten(0, -2), text.flatten(), reduction="none").view(text.shape)
        w = torch.where((text > 0).any(1, keepdim=True), 1.0, 0.02)
        state = (cross(f["ground"], t["f_ground"]) + cross(f["count"], t["f_count"]) + cross(f["shapes"].unflatten(-1, (4, 4)), t["f_shapes"])
                 + cross(f["colors"].unflatten(-1, (8, 3)), t["f_colors"]) + cross(f["shape"], t["f_shape"]) + cross(f["color"], t["f_color"])
                 + 0.5 * spread(f["xy"], t["f_xy"], one) + (read * w).sum() / (w.sum() * SLOTS + 1))
        move = cross(self.move(self.normal(two[image_at])).float(), t["t_move"].flatten())
        s = parts(self.so_far(self.normal(three[end_at])), SO_FAR)
        so_far = cross(s["act"], t["act"]) + cross(s["at"], t["at"])
        about = self.normal(three[ask_at])
        where = self.asked(about).float()
        asked = spread(where, ask_xy, ask_weight)
        # The nearest numbers are nearly as right.
        number = self.number(about).float().log_softmax(-1)
        near = [ask_number, (ask_number - 1).clamp(min=0), (ask_number + 1).clamp(max=NUMBERS - 1)]
        digit = ask_number != NONE
        told = sum(w * number.gather(1, n.clamp(min=0)[:, None])[:, 0] for w, n in zip((0.6, 0.2, 0.2), near))
        losses = {"state": state, "move": move, "so_far": so_far, "asked": asked, "number": -(told * digit).sum() / (digit.sum() + 1)}
        with torch.no_grad():
            some = t["at"] > 0
            chars = f["text"].unflatten(-1, (SLOTS, CHARS)).argmax(-1)
            off = (where.unflatten(-1, (6, BINS)).argmax(-1) / (BINS - 1) - ask_xy).abs().mean(-1)
            hits = {"at": (s["at"].argmax(-1) == t["at"])[some].float().mean(), "letters": (chars == text)[text > 0].float().mean(),
                    "off": (off * ask_weight).sum() / ask_weight.sum(), "number": (number.argmax(-1) - ask_number).abs()[digit].float().mean()}
        return losses, hits

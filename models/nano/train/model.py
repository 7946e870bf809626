# SPDX-License-Identifier: LGPL-2.1-or-later
"""InternVL 2.5 in small: InternViT, pixel shuffle v2, mlp1, Qwen2.

Module names follow the checkpoint layout of OpenGVLab, so that `state_dict()` is the file's tensor list. Shapes: F frames, R packed
rows of L tokens, P = 65 vision tokens a frame (class token and 8x8 patches), 16 visual tokens a frame after the pixel shuffle.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

CFG = dict(image=112, patch=14, vit=192, vit_layers=4, vit_heads=6, vit_ffn=768,
           llm=256, llm_layers=4, heads=4, kv_heads=2, ffn=704, theta=1e4)
GRID = CFG["image"] // CFG["patch"]
VISUAL = (GRID // 2) ** 2                       # visual tokens a frame
MEAN = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)


def normalised(frames):
    """u8 [F, 112, 112, 3] -> f32 [F, 3, 112, 112]."""
    return (torch.as_tensor(frames).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def cut(x):
    """[F, 3, 112, 112] -> [F, 64, 3*14*14]."""
    p, g = CFG["patch"], GRID
    return x.view(-1, 3, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(-1, g * g, 3 * p * p)


def attend(q, k, v, mask=None):
    """Plain softmax attention: at these lengths several times faster on a CPU than the fused kernel and its backward."""
    s = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        s = s + mask
    return s.softmax(-1) @ v


class VitAttention(nn.Module):
    def __init__(self, c, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(c, 3 * c)
        self.proj = nn.Linear(c, c)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(b, n, c))


class VitMlp(nn.Module):
    def __init__(self, c, f):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c, f), nn.Linear(f, c)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class VitLayer(nn.Module):
    def __init__(self, c, heads, f):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c, eps=1e-6), nn.LayerNorm(c, eps=1e-6)
        self.attn, self.mlp = VitAttention(c, heads), VitMlp(c, f)
        self.ls1, self.ls2 = nn.Parameter(torch.full((c,), 0.5)), nn.Parameter(torch.full((c,), 0.5))

    def forward(self, x):
        x = x + self.attn(self.norm1(x)) * self.ls1
        return x + self.mlp(self.norm2(x)) * self.ls2


PLACE = 64                                      # channels that hold nothing but a patch's place, at first
WAVES = 2.0 * 0.84 ** torch.arange(PLACE // 4)   # radians a patch; every other one is what heads look by
# Where the heads of the first layers look, at first: patches down, and to the right.
LOOK = (((0, -1), (0, 1), (-1, 0), (1, 0), (-1, -1), (1, 1)), ((0, -1), (0, 1), (-2, 0), (2, 0), (-1, 1), (1, -1)))


def places(c, grid):
    """[1, 1 + grid*grid, c]: sines and cosines of row and column. A learned table that starts at zero never found out where things are."""
    a = torch.arange(grid).float()[:, None] * WAVES
    row = torch.stack([a.sin(), a.cos()], 2).flatten(1)
    table = torch.zeros(grid, grid, c)
    table[..., -PLACE:] = torch.cat([row[:, None].expand(grid, grid, -1), row[None].expand(grid, grid, -1)], 2)
    return torch.cat([torch.zeros(1, c), table.view(-1, c)])[None]


@torch.no_grad()
def look_around(attn, offsets):
    """Heads that attend to the patch at an offset: a 3x3 convolution's start rather than a blind one. Turning the sines of a place by the
    offset gives those of the place to look at."""
    c, d = attn.proj.weight.shape[0], attn.proj.weight.shape[0] // attn.heads
    w, half, n = attn.qkv.weight, PLACE // 2, d // 4
    for h, offset in enumerate(offsets):
        q, k = torch.zeros(d, c), torch.zeros(d, c)
        for axis in (0, 1):
            for i in range(n):
                f = i * (PLACE // 4) // n
                r, at = axis * 2 * n + 2 * i, c - PLACE + axis * half + 2 * f
                turn = WAVES[f] * offset[axis]
                k[r, at] = k[r + 1, at + 1] = 1
                q[r, at], q[r, at + 1], q[r + 1, at], q[r + 1, at + 1] = turn.cos(), turn.sin(), -turn.sin(), turn.cos()
        for j, m in enumerate((q, k)):
            rows = w[j * c + h * d:j * c + (h + 1) * d]
            rows.mul_(0.2).add_(m, alpha=d ** 0.25)


class VitEmbeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(1, 1, c) * 0.02)
        self.position_embedding = nn.Parameter(places(c, GRID))
        self.patch_embedding = nn.Conv2d(3, c, CFG["patch"], CFG["patch"])

    def forward(self, x):
        # The convolution as a matmul: much faster on a CPU, same weights.
        w = self.patch_embedding
        x = F.linear(cut(x), w.weight.flatten(1), w.bias)
        return torch.cat([self.class_embedding.expand(len(x), -1, -1), x], 1) + self.position_embedding


class VitEncoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layers = nn.ModuleList(VitLayer(c, CFG["vit_heads"], CFG["vit_ffn"]) for _ in range(CFG["vit_layers"]))


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.embeddings = VitEmbeddings(CFG["vit"])
        self.encoder = VitEncoder(CFG["vit"])

    def forward(self, pixels):
        """[F, 3, 112, 112] normalised -> [F, 64, C]: the class token is used inside only."""
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)
        return x[:, 1:]


class RmsNorm(nn.Module):
    def __init__(self, h):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(h))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * self.weight


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class LlmAttention(nn.Module):
    def __init__(self, h, heads, kv):
        super().__init__()
        self.heads, self.kv, self.d = heads, kv, h // heads
        self.q_proj = nn.Linear(h, h)
        self.k_proj, self.v_proj = nn.Linear(h, kv * self.d), nn.Linear(h, kv * self.d)
        self.o_proj = nn.Linear(h, h, bias=False)

    def forward(self, x, cos, sin, mask, cache=None):
        b, n, _ = x.shape
        q = rotate(self.q_proj(x).view(b, n, self.heads, self.d).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(b, n, self.kv, self.d).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(b, n, self.kv, self.d).transpose(1, 2)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
            cache[:] = [k, v]
        # Heads that share keys and values: [b, kv, group, n, d].
        q = q.view(b, self.kv, -1, n, self.d)
        x = attend(q, k[:, :, None], v[:, :, None], None if mask is None else mask[:, None])
        return self.o_proj(x.reshape(b, self.heads, n, self.d).transpose(1, 2).reshape(b, n, -1))


class LlmMlp(nn.Module):
    def __init__(self, h, f):
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(h, f, bias=False), nn.Linear(h, f, bias=False)
        self.down_proj = nn.Linear(f, h, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlmLayer(nn.Module):
    def __init__(self):
        super().__init__()
        h = CFG["llm"]
        self.self_attn = LlmAttention(h, CFG["heads"], CFG["kv_heads"])
        self.mlp = LlmMlp(h, CFG["ffn"])
        self.input_layernorm, self.post_attention_layernorm = RmsNorm(h), RmsNorm(h)

    def forward(self, x, cos, sin, mask, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlmModel(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, CFG["llm"])
        self.layers = nn.ModuleList(LlmLayer() for _ in range(CFG["llm_layers"]))
        self.norm = RmsNorm(CFG["llm"])


class Llm(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.model = LlmModel(vocab)
        self.lm_head = nn.Linear(CFG["llm"], vocab, bias=False)

    def forward(self, x, pos, mask, caches=None):
        """x [R, L, H], pos [R, L], mask additive or None -> hidden [R, L, H] after each layer; the last one normalised."""
        d = CFG["llm"] // CFG["heads"]
        inv = CFG["theta"] ** (-torch.arange(0, d, 2).float() / d)
        a = pos.float()[:, None, :, None] * inv
        a = torch.cat([a, a], -1)
        cos, sin = a.cos().to(x.dtype), a.sin().to(x.dtype)
        out = []
        for i, layer in enumerate(self.model.layers):
            x = layer(x, cos, sin, mask, caches[i] if caches else None)
            out.append(x)
        return out[:-1] + [self.model.norm(x)]


def pixel_shuffle(x):
    """[F, 64, C] -> [F, 16, 4C]; channel blocks are top-left, top-right, bottom-left, bottom-right."""
    f, _, c = x.shape
    h = GRID // 2
    return x.view(f, h, 2, h, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(f, h * h, 4 * c)


class Nano(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        c, h = 4 * CFG["vit"], CFG["llm"]
        self.vision_model = Vit()
        self.language_model = Llm(vocab)
        self.mlp1 = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, h), nn.GELU(), nn.Linear(h, h))
        for name, p in self.named_parameters():
            if p.dim() == 2 and "embed_tokens" not in name:
                nn.init.normal_(p, std=0.02 if "lm_head" in name else 1 / math.sqrt(p.shape[1]))
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        nn.init.normal_(self.language_model.model.embed_tokens.weight, std=0.5)
        for layer, offsets in zip(self.vision_model.encoder.layers, LOOK):
            look_around(layer.attn, offsets)
        # Branches that write into the residual stream start small, so that depth does not drown the input.
        for layer in self.language_model.model.layers:
            layer.self_attn.o_proj.weight.data *= 0.35
            layer.mlp.down_proj.weight.data *= 0.35

    def patches(self, frames):
        """u8 [F, 112, 112, 3] -> [F, 64, C]."""
        return self.vision_model(normalised(frames).to(self.mlp1[1].weight.dtype))

    def visual(self, patches):
        return self.mlp1(pixel_shuffle(patches))

    def layers(self, visual, ids, image_at, pos, mask, caches=None):
        """Merge [F, 16, H] into the rows at the flat positions image_at [F*16], then decode: hidden states after each layer."""
        x = self.language_model.model.embed_tokens(ids)
        if visual is not None:
            x = x.flatten(0, 1).index_copy(0, image_at, visual.flatten(0, 1)).view_as(x)
        return self.language_model(x, pos, mask, caches)

    def hidden(self, *args):
        return self.layers(*args)[-1]

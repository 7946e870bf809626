"""The true shapes of InternVL2_5-1B with seeded weights -> tests/golden/full_size.json.

The weights follow a rule that takes a few lines in any language (README.md, "Full size"). About 6 GB of memory and a few
minutes; --double also runs the prompt in float64, to learn how far fp32 itself is off (10 GB).
"""
import gc
import json
import os
import sys

import numpy as np
import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig, Qwen2Config

import layouts
import pictures
from make_models import GOLDEN, Hooks, compact

C, VISION_LAYERS, VISION_FFN = 1024, 24, 4096
H, LAYERS, HEADS, KV_HEADS, FFN, VOCAB = 896, 24, 14, 2, 4864, 151674
IMG, IMG_END, IMG_CONTEXT = 151665, 151666, 151667
PROMPT, IMAGE_AT = 300, 20

# First match decides: ending of the original name -> (middle, half width a). Every a is a small multiple of a power of
# two, so that middle + a * t / 2^23 is exact in double.
RULES = [
    ("norm1.weight", 1, 0.25), ("norm2.weight", 1, 0.25), ("norm1.bias", 0, 0.125), ("norm2.bias", 0, 0.125),
    ("mlp1.0.weight", 1, 0.25), ("mlp1.0.bias", 0, 0.125), ("layernorm.weight", 1, 0.25),
    ("model.norm.weight", 1, 0.25), ("ls1", 0.25, 0.25), ("ls2", 0.25, 0.25),
    ("class_embedding", 0, 0.5), ("position_embedding", 0, 0.5), ("embed_tokens.weight", 0, 0.5),
    ("k_proj.bias", 0, 4.0), ("q_proj.bias", 0, 0.5), ("v_proj.bias", 0, 0.25), (".bias", 0, 0.0625),
    ("fc2.weight", 0, 0.03125), ("mlp1.1.weight", 0, 0.03125), ("down_proj.weight", 0, 0.03125),
    ("lm_head.weight", 0, 0.1875), (".weight", 0, 0.0625),
]


def fnv1a(name):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 & (1 << 64) - 1
    return h


def splitmix(seed, first, n):
    """Outputs FIRST ... FIRST + N - 1 of splitmix64 started at SEED."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(first + 1, first + n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def weight(name, shape):
    """bf16 tensor"""
    middle, a = next((m, a) for end, m, a in RULES if name.endswith(end))
    n, seed = int(np.prod(shape)), fnv1a(name)
    out = torch.empty(n, dtype=torch.bfloat16)
    for i in range(0, n, 1 << 22):
        t = (splitmix(seed, i, min(1 << 22, n - i)) >> np.uint64(40)).astype(np.int64) - (1 << 23)
        out[i:i + len(t)] = torch.from_numpy((middle + t * (a / (1 << 23))).astype(np.float32)).to(torch.bfloat16)
    return out.view(shape)


def shapes():
    out = {"vision_model.embeddings.class_embedding": (1, 1, C),
           "vision_model.embeddings.position_embedding": (1, 1025, C),
           "vision_model.embeddings.patch_embedding.weight": (C, 3, 14, 14),
           "vision_model.embeddings.patch_embedding.bias": (C,)}

    def linear(name, rows, cols, bias=True):
        out[name + ".weight"] = (rows, cols)
        if bias:
            out[name + ".bias"] = (rows,)

    for i in range(VISION_LAYERS):
        l = f"vision_model.encoder.layers.{i}."
        out.update({l + "norm1.weight": (C,), l + "norm1.bias": (C,), l + "norm2.weight": (C,), l + "norm2.bias": (C,),
                    l + "ls1": (C,), l + "ls2": (C,)})
        linear(l + "attn.qkv", 3 * C, C)
        linear(l + "attn.proj", C, C)
        linear(l + "mlp.fc1", VISION_FFN, C)
        linear(l + "mlp.fc2", C, VISION_FFN)
    out.update({"mlp1.0.weight": (4 * C,), "mlp1.0.bias": (4 * C,)})
    linear("mlp1.1", H, 4 * C)
    linear("mlp1.3", H, H)
    p, d = "language_model.", H // HEADS
    out[p + "model.embed_tokens.weight"] = (VOCAB, H)
    for i in range(LAYERS):
        l = f"{p}model.layers.{i}."
        out.update({l + "input_layernorm.weight": (H,), l + "post_attention_layernorm.weight": (H,)})
        linear(l + "self_attn.q_proj", H, H)
        linear(l + "self_attn.k_proj", KV_HEADS * d, H)
        linear(l + "self_attn.v_proj", KV_HEADS * d, H)
        linear(l + "self_attn.o_proj", H, H, False)
        linear(l + "mlp.gate_proj", FFN, H, False)
        linear(l + "mlp.up_proj", FFN, H, False)
        linear(l + "mlp.down_proj", H, FFN, False)
    out.update({p + "model.norm.weight": (H,), p + "lm_head.weight": (VOCAB, H)})
    return out


def prompt_ids():
    ids = (splitmix(fnv1a("prompt"), 0, PROMPT) % np.uint64(151643)).astype(np.int64).tolist()
    ids[IMAGE_AT:IMAGE_AT + 258] = [IMG] + [IMG_CONTEXT] * 256 + [IMG_END]
    return ids


def build(dtype):
    text = Qwen2Config(hidden_size=H, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
                       intermediate_size=FFN, vocab_size=VOCAB, rms_norm_eps=1e-6, max_position_embeddings=32768,
                       rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=False)
    vision = InternVLVisionConfig(attention_bias=True)
    config = InternVLConfig(text_config=text, vision_config=vision, image_token_id=IMG_CONTEXT,
                            tie_word_embeddings=False)
    config._attn_implementation = "eager"
    torch.set_default_dtype(dtype)
    model = InternVLForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    params, checks = dict(model.named_parameters()), {}
    row = dict(text="qwen2", heads=HEADS, kv_heads=KV_HEADS)
    for name, shape in shapes().items():
        w = weight(name, shape)
        bits = w.view(-1).view(torch.int16).numpy().view(np.uint16)
        if "layers." not in name or "layers.7." in name:
            checks[name] = dict(shape=list(shape), first=bits[:4].tolist(), sum=int(bits.astype(np.uint64).sum()))
        for new, part in layouts.to_hf({name: w}, row).items():
            params.pop(new).copy_(part)
    assert not params, list(params)
    return model, checks


def describe(x, name, n):
    """Statistics and N samples of a tensor, at places drawn from its name."""
    x = x.detach().double().flatten()
    at = sorted({int(v) for v in splitmix(fnv1a(name), 0, n) % np.uint64(len(x))})
    return dict(size=len(x), mean=x.mean().item(), rms=x.pow(2).mean().sqrt().item(), max=x.abs().max().item(),
                at=at, values=[float(f"{v:.9g}") for v in x[at].tolist()])


def run(model, dtype):
    pixels = torch.from_numpy(pictures.normalise(pictures.formula_picture(448, 448)[None])).to(dtype)
    ids = torch.tensor([prompt_ids()])
    v, t = model.model.vision_tower, model.model.language_model
    modules = {"vision.embeddings": v.embeddings, "vision.projected": model.model.multi_modal_projector,
               "text.final_norm": t.norm}
    modules.update({f"vision.block.{i}": v.encoder.layer[i] for i in (0, 11, 23)})
    modules.update({f"text.layer.{i}": t.layers[i] for i in (0, 11, 23)})
    with Hooks(modules) as out:
        logits = model(input_ids=ids, pixel_values=pixels, logits_to_keep=1).logits[0, 0]
    states = {k: (x[0, -1] if k.startswith("text.") else x[0]) for k, x in out.items()}
    return pixels, ids, states, logits


def main():
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    model, checks = build(torch.float32)
    pixels, ids, states, logits = run(model, torch.float32)
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, do_sample=False,
                         max_new_tokens=8, eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
                         output_logits=True)
    steps = torch.cat(out.logits)
    two = steps.topk(2, -1).values
    top = logits.topk(10)
    golden = dict(
        model="InternVL2_5-1B shapes", dtype="bf16 weights, fp32 arithmetic", prompt_ids=ids[0].tolist(),
        picture="formula_picture(448, 448)", weights=checks,
        states={k: describe(x, k, 200 if k == "vision.projected" else 32) for k, x in states.items()},
        logits=describe(logits, "logits", 256), top_ids=top.indices.tolist(), top_logits=top.values.tolist(),
        token_ids=out.sequences[0, ids.shape[1]:].tolist(), margins=(two[:, 0] - two[:, 1]).tolist())
    for k, s in [*golden["states"].items(), ("logits", golden["logits"])]:
        print(f"{k:18} rms {s['rms']:.4f} max {s['max']:.3f}")
    print("tokens", golden["token_ids"], "margins", [round(m, 3) for m in golden["margins"]])
    if "--double" in sys.argv:
        states = {k: x.double().clone() for k, x in states.items()}
        logits = logits.double().clone()
        del model, out, pixels
        gc.collect()
        model, _ = build(torch.float64)
        _, _, states64, logits64 = run(model, torch.float64)
        error = lambda a, b: ((a - b).abs().max() / b.abs().max()).item()
        golden["fp32_error"] = {k: error(states[k], states64[k].double()) for k in states}
        golden["fp32_error"]["logits"] = error(logits, logits64.double())
        print("fp32 against float64, largest difference over largest value:", golden["fp32_error"])
    with open(os.path.join(GOLDEN, "full_size.json"), "w") as f:
        f.write(compact(golden) + "\n")


if __name__ == "__main__":
    main()

"""Writes golden checkpoint folders as pairs of GGUF files, as llama.cpp's converter would, and blocks of every
quantised type with the values that the gguf package makes of them.

  python make_gguf.py                       # what is in tests/golden/gguf, and seeds of tests/fuzz/corpus/gguf
  python make_gguf.py FOLDER OUT [TYPE...]  # an original-layout folder; TYPEs of 32-blocks for the matrices in turn

Needs: gguf, numpy, safetensors, sentencepiece. Deterministic.
"""
import glob
import json
import os
import re
import struct
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")
STORED = {"F32": (np.float32, T.F32), "F16": (np.float16, T.F16), "BF16": (np.uint16, T.BF16)}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def read_tensors(folder):
    """name -> (array of bits as stored, type)."""
    out = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        data = open(path, "rb").read()
        n = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:8 + n]).items():
            if name != "__metadata__":
                dtype, kind = STORED[entry["dtype"]]
                a, b = (8 + n + x for x in entry["data_offsets"])
                out[name] = np.frombuffer(data[a:b], dtype).reshape(entry["shape"]), kind
    return out


def to_f32(array, kind):
    if kind == T.BF16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def permute(w, heads):
    """Rotary pairs side by side: row j + b * d / 2 of a head goes to 2 * j + b."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def split_wqkv(w, heads, kv_heads):
    d = w.shape[0] // (heads + 2 * kv_heads)
    w = w.reshape(kv_heads, heads // kv_heads + 2, d, -1)
    return w[:, :-2].reshape(heads * d, -1), w[:, -2].reshape(kv_heads * d, -1), w[:, -1].reshape(kv_heads * d, -1)


TEXT = [
    (r"^model\.(tok_embeddings|embed_tokens)", "token_embd"), (r"^model\.norm", "output_norm"),
    (r"^(lm_head|output)\.", "output."), (r"^model\.layers", "blk"),
    (r"self_attn\.([qkv])_proj", r"attn_\1"), (r"self_attn\.o_proj|attention\.wo", "attn_output"),
    (r"mlp\.gate_proj|feed_forward\.w1", "ffn_gate"), (r"mlp\.up_proj|feed_forward\.w3", "ffn_up"),
    (r"mlp\.down_proj|feed_forward\.w2", "ffn_down"),
    (r"input_layernorm|attention_norm", "attn_norm"), (r"post_attention_layernorm|ffn_norm", "ffn_norm"),
]
VISION = [
    (r"^embeddings\.class_embedding$", "v.class_embd"),
    (r"^embeddings\.position_embedding$", "v.position_embd.weight"),
    (r"^embeddings\.patch_embedding", "v.patch_embd"), (r"^encoder\.layers", "v.blk"),
    (r"attn\.q_norm", "attn_q_norm"), (r"attn\.k_norm", "attn_k_norm"), (r"attn\.proj", "attn_out"),
    (r"norm([12])\.(weight|bias)", r"ln\1.\2"), (r"ls([12])$", r"ls\1.weight"),
    (r"mlp\.fc1", "ffn_up"), (r"mlp\.fc2", "ffn_down"),
]


def rename(name, table):
    for pattern, new in table:
        name = re.sub(pattern, new, name)
    return name


class File:
    def __init__(self, path, architecture, quantise):
        self.writer = gguf.GGUFWriter(path, architecture)
        self.quantise = quantise
        self.n = 0

    def add(self, name, array, kind):
        # The converter keeps vectors in F32.
        if array.ndim == 1 or name in ("v.class_embd", "v.position_embd.weight"):
            self.writer.add_tensor(name, to_f32(array, kind))
            return
        if self.quantise and array.ndim == 2 and array.shape[1] % 32 == 0:
            # Files in use mix types, too.
            quantised = self.quantise[self.n % len(self.quantise)]
            self.n += 1
            data = gguf.quantize(np.ascontiguousarray(to_f32(array, kind)), quantised)
            self.writer.add_tensor(name, data, raw_dtype=quantised)
        elif kind == T.BF16:
            array = np.ascontiguousarray(array)
            self.writer.add_tensor(name, array.view(np.uint8), raw_dtype=T.BF16)
        else:
            self.writer.add_tensor(name, np.ascontiguousarray(array))

    def finish(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def load(folder, name):
    path = os.path.join(folder, name)
    return json.load(open(path, encoding="utf-8")) if os.path.exists(path) else {}


def added_tokens(folder):
    """id -> (name, special)"""
    config = load(folder, "tokenizer_config.json")
    out = {i: (t, True) for t, i in load(folder, "added_tokens.json").items()}
    out.update({int(i): (t["content"], t["special"]) for i, t in config.get("added_tokens_decoder", {}).items()})
    return out


def looks_special(name):
    return name.startswith("<|") and name.endswith("|>")


def write_gpt2(w, folder, size):
    vocab = {i: t for t, i in load(folder, "vocab.json").items()}
    added = added_tokens(folder)
    tokens, types = [], []
    for i in range(size):
        if i in added:
            name, special = added[i]
            tokens.append(name)
            types.append(CONTROL if special or looks_special(name) else USER_DEFINED)
        elif i in vocab:
            tokens.append(vocab[i])
            types.append(NORMAL)
        else:
            tokens.append(f"[PAD{i}]")
            types.append(UNUSED)
    merges = [line.rstrip("\n") for line in open(os.path.join(folder, "merges.txt"), encoding="utf-8")]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges([m for m in merges if m and not m.startswith("#version")])
    w.add_add_bos_token(False)
    return tokens


def write_llama(w, folder, size):
    from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2 as pb
    path = os.path.join(folder, "tokenizer.model")
    sp = SentencePieceProcessor(model_file=path)
    proto = pb.ModelProto.FromString(open(path, "rb").read())
    tokens, scores, types = [], [], []
    for i in range(sp.vocab_size()):
        tokens.append(sp.id_to_piece(i))
        scores.append(sp.get_score(i))
        types.append(UNKNOWN if sp.is_unknown(i) else CONTROL if sp.is_control(i) else UNUSED if sp.is_unused(i)
                     else BYTE if sp.is_byte(i) else NORMAL)
    for i, (name, special) in sorted(added_tokens(folder).items()):
        while len(tokens) <= i:
            tokens.append(f"[PAD{len(tokens)}]")
            scores.append(-10000.0)
            types.append(UNUSED)
        if not (tokens[i] == name and types[i] in (UNKNOWN, CONTROL)):
            tokens[i], scores[i], types[i] = name, -1000.0, CONTROL if special else USER_DEFINED
    assert len(tokens) == size
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(tokens)
    w.add_token_scores(scores)
    w.add_token_types(types)
    w.add_add_space_prefix(proto.normalizer_spec.add_dummy_prefix)
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    return tokens


def write_text(path, folder, config, tensors, quantise):
    llm = config["llm_config"]
    arch = llm["model_type"]
    heads, kv_heads = llm["num_attention_heads"], llm["num_key_value_heads"]
    f = File(path, arch, quantise)
    w = f.writer
    w.add_name(os.path.basename(os.path.normpath(folder)))
    w.add_context_length(llm["max_position_embeddings"])
    w.add_embedding_length(llm["hidden_size"])
    w.add_block_count(llm["num_hidden_layers"])
    w.add_feed_forward_length(llm["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_layer_norm_rms_eps(llm["rms_norm_eps"])
    w.add_rope_freq_base(llm["rope_theta"])
    if (llm.get("rope_scaling") or {}).get("type") == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(llm["rope_scaling"]["factor"])
    tokens = (write_llama if arch == "internlm2" else write_gpt2)(w, folder, llm["vocab_size"])
    # In chat models the converter names the turn's end, whatever config.json says.
    w.add_eos_token_id(tokens.index("<|im_end|>"))
    w.add_bos_token_id(llm["bos_token_id"])
    for name, (array, kind) in tensors.items():
        if not name.startswith("language_model."):
            continue
        name = rename(name[len("language_model."):], TEXT)
        if "wqkv" in name:
            q, k, v = split_wqkv(array, heads, kv_heads)
            for part, rows in ("q", permute(q, heads)), ("k", permute(k, kv_heads)), ("v", v):
                f.add(name.replace("attention.wqkv", "attn_" + part), rows, kind)
        else:
            f.add(name, array, kind)
    f.finish()


def write_mmproj(path, config, tensors, quantise):
    v = config["vision_config"]
    f = File(path, "clip", quantise)
    w = f.writer
    w.add_bool("clip.has_vision_encoder", True)
    w.add_string("clip.projector_type", "internvl")
    w.add_bool("clip.use_gelu", True)
    p = "clip.vision."
    w.add_uint32(p + "image_size", config.get("force_image_size", v["image_size"]))
    w.add_uint32(p + "patch_size", v["patch_size"])
    w.add_uint32(p + "embedding_length", v["hidden_size"])
    w.add_uint32(p + "feed_forward_length", v["intermediate_size"])
    w.add_uint32(p + "block_count", v["num_hidden_layers"])
    w.add_uint32(p + "attention.head_count", v["num_attention_heads"])
    w.add_float32(p + "attention.layer_norm_epsilon", v["layer_norm_eps"])
    w.add_uint32(p + "projection_dim", config["llm_config"]["hidden_size"])
    w.add_array(p + "image_mean", [0.485, 0.456, 0.406])
    w.add_array(p + "image_std", [0.229, 0.224, 0.225])
    w.add_uint32(p + "projector.scale_factor", 2)
    for name, (array, kind) in tensors.items():
        if name.startswith("mlp1."):
            f.add("mm.model.mlp." + name[len("mlp1."):], array, kind)
        elif name.startswith("vision_model."):
            name = rename(name[len("vision_model."):], VISION)
            if "attn.qkv" in name:
                for part, rows in zip("qkv", np.split(array, 3)):
                    f.add(name.replace("attn.qkv", "attn_" + part), rows, kind)
            else:
                f.add(name, array, kind)
    f.finish()


def convert(folder, out, quantise=()):
    os.makedirs(out, exist_ok=True)
    config = load(folder, "config.json")
    tensors = read_tensors(folder)
    write_text(os.path.join(out, "model.gguf"), folder, config, tensors, quantise)
    write_mmproj(os.path.join(out, "mmproj.gguf"), config, tensors, quantise)


# ---- blocks ----

def random_blocks(kind, rng, n):
    """Bytes of N blocks: any bits, but scales that are finite."""
    size = gguf.GGML_QUANT_SIZES[kind][1]
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    places = {T.Q4_1: (0, 2), T.Q5_1: (0, 2), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,)}.get(kind, (0,))
    for at in places:
        scale = rng.normal(size=n).astype(np.float16)
        scale[0] = 0
        scale[1] = np.float16(6e-8)   # the smallest subnormal
        scale[2] = np.float16(-65504)
        raw[:, at:at + 2] = scale.view(np.uint8).reshape(n, 2)
    return raw


def write_blocks(path):
    w = gguf.GGUFWriter(path, "blocks")
    rng = np.random.default_rng(7)
    for kind in T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K:
        raw = random_blocks(kind, rng, 6)
        w.add_tensor(kind.name, raw, raw_dtype=kind)
        w.add_tensor(kind.name + ".f32", gguf.dequantize(raw, kind).astype(np.float32))
    w.add_string("test.string", "Grüße, 世界")
    w.add_array("test.strings", ["", "a", "書生"])
    w.add_array("test.floats", [0.5, -1.0])
    w.add_array("test.ints", [1, -2, 3])
    w.add_array("test.bools", [True, False])
    w.add_uint8("test.u8", 255)
    w.add_int8("test.i8", -1)
    w.add_uint16("test.u16", 65535)
    w.add_int16("test.i16", -2)
    w.add_uint32("test.u32", 4294967295)
    w.add_int32("test.i32", -3)
    w.add_float32("test.f32", 0.25)
    w.add_bool("test.bool", True)
    w.add_uint64("test.u64", 1 << 40)
    w.add_int64("test.i64", -(1 << 40))
    w.add_float64("test.f64", 1e-300)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


# ---- seeds of the fuzz corpus ----

def write_seed(path, name, arch, rms):
    """Text model and mmproj in one small file, which fuzz-gguf takes for both; the tokenizer is a golden folder's."""
    folder = os.path.join(GOLDEN, "models", name)
    size = load(folder, "config.json")["llm_config"]["vocab_size"]
    f = File(path, arch, ())
    w = f.writer
    w.add_context_length(64)
    w.add_embedding_length(32)
    w.add_block_count(1)
    w.add_feed_forward_length(8)
    w.add_head_count(2)
    w.add_head_count_kv(1)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1e4)
    tokens = (write_llama if arch == "internlm2" else write_gpt2)(w, folder, size)
    w.add_eos_token_id(tokens.index("<|im_end|>"))
    w.add_string("clip.projector_type", "internvl")
    w.add_bool("clip.use_gelu", True)
    for key, value in (("image_size", 28), ("patch_size", 14), ("embedding_length", 8), ("feed_forward_length", 8),
                       ("block_count", 1), ("attention.head_count", 1), ("projector.scale_factor", 2)):
        w.add_uint32("clip.vision." + key, value)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    w.add_array("clip.vision.image_mean", [0.485, 0.456, 0.406])
    shapes = {"token_embd.weight": (size, 32), "output_norm.weight": (32,), "v.class_embd": (8,),
              "v.position_embd.weight": (5, 8), "v.patch_embd.weight": (8, 3, 14, 14), "v.patch_embd.bias": (8,),
              "mm.model.mlp.0.weight": (32,), "mm.model.mlp.0.bias": (32,), "mm.model.mlp.1.weight": (32, 32),
              "mm.model.mlp.1.bias": (32,), "mm.model.mlp.3.weight": (32, 32), "mm.model.mlp.3.bias": (32,)}
    text = {"attn_norm.weight": (32,), "attn_q.weight": (32, 32), "attn_k.weight": (16, 32),
            "attn_v.weight": (16, 32), "attn_output.weight": (32, 32), "ffn_norm.weight": (32,),
            "ffn_gate.weight": (8, 32), "ffn_up.weight": (8, 32), "ffn_down.weight": (32, 8)}
    if arch == "qwen2":
        text.update({"attn_q.bias": (32,), "attn_k.bias": (16,), "attn_v.bias": (16,)})
    vision = {"ln1.weight": (8,), "ln2.weight": (8,), "ls1.weight": (8,), "ls2.weight": (8,),
              "attn_q.weight": (8, 8), "attn_k.weight": (8, 8), "attn_v.weight": (8, 8),
              "attn_out.weight": (8, 8), "attn_out.bias": (8,), "ffn_up.weight": (8, 8), "ffn_up.bias": (8,),
              "ffn_down.weight": (8, 8), "ffn_down.bias": (8,)}
    if rms:
        vision.update({"attn_q_norm.weight": (8,), "attn_k_norm.weight": (8,)})
    else:
        vision.update({"ln1.bias": (8,), "ln2.bias": (8,), "attn_q.bias": (8,), "attn_k.bias": (8,), "attn_v.bias": (8,)})
    shapes.update({"blk.0." + k: v for k, v in text.items()})
    shapes.update({"v.blk.0." + k: v for k, v in vision.items()})
    kinds = [T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1]
    rng = np.random.default_rng(3)
    for i, (key, shape) in enumerate(shapes.items()):
        values = rng.normal(size=shape).astype(np.float32)
        if len(shape) == 2 and shape[1] == 32:
            w.add_tensor(key, gguf.quantize(values, kinds[i % 5]), raw_dtype=kinds[i % 5])
        else:
            w.add_tensor(key, values if len(shape) == 1 else values.astype(np.float16))
    f.finish()


def main():
    if len(sys.argv) > 2:
        convert(sys.argv[1], sys.argv[2], [T[t] for t in sys.argv[3:]])
        return
    out = os.path.join(GOLDEN, "gguf")
    os.makedirs(out, exist_ok=True)
    for name in "qwen2-ln-orig", "internlm2-rms-orig":
        convert(os.path.join(GOLDEN, "models", name), os.path.join(out, name))
    convert(os.path.join(GOLDEN, "models", "internlm2-rms-orig"), os.path.join(out, "internlm2-rms-orig-quantised"),
            [T.Q8_0, T.Q4_0, T.Q5_1, T.Q5_0, T.Q4_1])
    corpus = os.path.join(GOLDEN, "..", "fuzz", "corpus", "gguf")
    os.makedirs(corpus, exist_ok=True)
    write_seed(os.path.join(corpus, "seed-qwen2"), "qwen2-ln-orig", "qwen2", False)
    write_seed(os.path.join(corpus, "seed-internlm2"), "internlm2-rms-orig", "internlm2", True)
    write_blocks(os.path.join(out, "blocks.gguf"))


if __name__ == "__main__":
    main()

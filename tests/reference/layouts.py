"""Tensor names and config.json of the folder layouts, and safetensors writing.

The weights are made under the names of OpenGVLab's own layout ("orig"); to_hf() renames and splits them as
transformers' conversion script does. "hf1": the older -hf prefixes (language_model.model. ...) with a config as
transformers 4 wrote it. "hf2": the newer prefixes (model.language_model. ...) with a config saved by transformers 5
(rope_parameters, dtype).
"""
import json
import os
import re

import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, LlamaConfig, Qwen2Config

VISION_NAMES = [
    (r"embeddings\.class_embedding", "embeddings.cls_token"),
    (r"embeddings\.position_embedding", "embeddings.position_embeddings"),
    (r"embeddings\.patch_embedding", "embeddings.patch_embeddings.projection"),
    (r"encoder\.layers", "encoder.layer"),
    (r"attn\.proj", "attention.projection_layer"),
    (r"attn\.", "attention."),
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"ls([12])$", r"lambda_\1"),
]
INTERNLM2_NAMES = [
    (r"tok_embeddings", "embed_tokens"), (r"attention\.wo", "self_attn.o_proj"),
    (r"feed_forward\.w1", "mlp.gate_proj"), (r"feed_forward\.w3", "mlp.up_proj"),
    (r"feed_forward\.w2", "mlp.down_proj"), (r"attention_norm", "input_layernorm"),
    (r"ffn_norm", "post_attention_layernorm"), (r"^output", "lm_head"),
]


def rename(name, table):
    for pattern, new in table:
        name = re.sub(pattern, new, name)
    return name


def split_wqkv(w, heads, kv_heads):
    """InternLM2's fused rows, per kv head: its query heads, its key, its value."""
    d = w.shape[0] // (heads + 2 * kv_heads)
    w = w.view(kv_heads, heads // kv_heads + 2, d, -1)
    return w[:, :-2].reshape(heads * d, -1), w[:, -2].reshape(kv_heads * d, -1), w[:, -1].reshape(kv_heads * d, -1)


def to_hf(tensors, m, older=False):
    """Original names -> -hf names. M: the model's row of the table in make_models.py."""
    out = {}
    vision, projector, text, head = (
        ("vision_tower.", "multi_modal_projector.", "language_model.model.", "language_model.lm_head.") if older else
        ("model.vision_tower.", "model.multi_modal_projector.", "model.language_model.", "lm_head."))
    for name, t in tensors.items():
        if name.startswith("vision_model."):
            new = vision + rename(name[len("vision_model."):], VISION_NAMES)
            if "attention.qkv" in new:
                for part, rows in zip("qkv", t.chunk(3)):
                    out[new.replace("qkv", part + "_proj")] = rows
            else:
                out[new] = t
        elif name.startswith("mlp1."):
            out[projector + {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}[name[5]] + name[6:]] = t
        else:
            name = rename(name[len("language_model."):], INTERNLM2_NAMES if m["text"] == "internlm2" else [])
            if "attention.wqkv" in name:
                for part, rows in zip("qkv", split_wqkv(t, m["heads"], m["kv_heads"])):
                    out[text + name[len("model."):].replace("attention.wqkv", f"self_attn.{part}_proj")] = rows
            elif name.startswith("lm_head."):
                out[head + name[len("lm_head."):]] = t
            else:
                out[text + name[len("model."):]] = t
    return {k: v.contiguous() for k, v in out.items()}


# ---- config.json ----

def hf_config(m, tokenizer):
    """The InternVLConfig of a model: what the reference runs on, whatever the layout of the folder."""
    rope = {"rope_theta": m["theta"], "rope_type": "default"}
    if m.get("rope_scaling"):
        rope.update(rope_type=m["rope_scaling"][0], factor=m["rope_scaling"][1])
    common = dict(hidden_size=m["hidden"], num_hidden_layers=m["layers"], num_attention_heads=m["heads"],
                  num_key_value_heads=m["kv_heads"], intermediate_size=m["ffn"], vocab_size=tokenizer.size,
                  rms_norm_eps=m["eps"], max_position_embeddings=m.get("max_pos", 2048), rope_parameters=rope,
                  hidden_act="silu", tie_word_embeddings=bool(m.get("tied")))
    if m["text"] == "internlm2":
        text = LlamaConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2, attention_bias=False, mlp_bias=False,
                           **common)
    else:
        eot = tokenizer.id("<|endoftext|>")
        text = Qwen2Config(bos_token_id=eot, eos_token_id=tokenizer.id("<|im_end|>"), use_sliding_window=False,
                           **common)
    v = m["vision"]
    rms = m["vit"] == "rms"
    vision = dict(model_type="internvl_vision", hidden_size=v["hidden"], num_hidden_layers=v["layers"],
                  num_attention_heads=v["heads"], intermediate_size=v["ffn"], attention_bias=not rms, use_qk_norm=rms,
                  norm_type="rms_norm" if rms else "layer_norm", layer_norm_eps=v.get("eps", 1e-6), hidden_act="gelu",
                  image_size=[m["tile"]] * 2, patch_size=[14, 14])
    # The outer tie_word_embeddings is true by default and so in published -hf files, head or no head.
    return InternVLConfig(text_config=text, vision_config=vision, image_token_id=tokenizer.id("<IMG_CONTEXT>"),
                          image_seq_length=(m["tile"] // 28) ** 2, tie_word_embeddings=True,
                          architectures=["InternVLForConditionalGeneration"])


DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
TORCH_NAMES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


def original_config(m, tokenizer):
    rms, v = m["vit"] == "rms", m["vision"]
    internlm2 = m["text"] == "internlm2"
    llm = dict(architectures=["InternLM2ForCausalLM" if internlm2 else "Qwen2ForCausalLM"],
               model_type="internlm2" if internlm2 else "qwen2", hidden_act="silu", hidden_size=m["hidden"],
               intermediate_size=m["ffn"], max_position_embeddings=m.get("max_pos", 2048),
               num_attention_heads=m["heads"], num_hidden_layers=m["layers"], num_key_value_heads=m["kv_heads"],
               rms_norm_eps=m["eps"], rope_theta=m["theta"], rope_scaling=None, vocab_size=tokenizer.size,
               tie_word_embeddings=bool(m.get("tied")), torch_dtype=TORCH_NAMES[m["dtype"]], use_cache=True)
    if m.get("rope_scaling"):
        llm["rope_scaling"] = {"type": m["rope_scaling"][0], "factor": m["rope_scaling"][1]}
    if internlm2:
        llm.update(bias=False, bos_token_id=1, eos_token_id=2, pad_token_id=2, attn_implementation="eager")
    else:
        llm.update(bos_token_id=tokenizer.id("<|endoftext|>"), eos_token_id=tokenizer.id("<|im_end|>"),
                   sliding_window=32768, use_sliding_window=False, max_window_layers=21)
    config = dict(
        architectures=["InternVLChatModel"], model_type="internvl_chat", downsample_ratio=0.5, dynamic_image_size=True,
        force_image_size=m["tile"], llm_config=llm, max_dynamic_patch=12, min_dynamic_patch=1, pad2square=False,
        ps_version="v2", select_layer=-1, template="internvl2_5", tie_word_embeddings=False,
        torch_dtype=TORCH_NAMES[m["dtype"]], use_backbone_lora=0, use_llm_lora=0, use_thumbnail=True,
        vision_config=dict(
            architectures=["InternVisionModel"], model_type="intern_vit_6b", attention_dropout=0.0,
            drop_path_rate=0.1 if not rms else 0.4, dropout=0.0, hidden_act="gelu", hidden_size=v["hidden"],
            image_size=m["tile"], initializer_factor=1.0, initializer_range=0.02, intermediate_size=v["ffn"],
            layer_norm_eps=v.get("eps", 1e-6), norm_type="rms_norm" if rms else "layer_norm",
            num_attention_heads=v["heads"], num_channels=3, num_hidden_layers=v["layers"], patch_size=14,
            qk_normalization=rms, qkv_bias=not rms, torch_dtype=TORCH_NAMES[m["dtype"]], use_flash_attn=False))
    if m.get("system_message") is not None:
        config["system_message"] = m["system_message"]
    return config


def write_config(folder, m, tokenizer):
    path = os.path.join(folder, "config.json")
    if m["layout"] == "orig":
        data = original_config(m, tokenizer)
    else:
        config = hf_config(m, tokenizer)
        config.dtype = DTYPES[m["dtype"]]
        data = json.loads(config.to_json_string(use_diff=False) if m["layout"] == "hf1" else config.to_json_string())
        if m["layout"] == "hf1":  # as transformers 4 wrote it
            text = data["text_config"]
            rope = text.pop("rope_parameters")
            text["rope_theta"] = rope["rope_theta"]
            text["rope_scaling"] = None
            if rope["rope_type"] != "default":
                text["rope_scaling"] = {"factor": rope["factor"], "rope_type": rope["rope_type"],
                                        "type": rope["rope_type"]}
            for c in (data, text, data["vision_config"]):
                c.pop("dtype", None)
                c.pop("transformers_version", None)
            data["torch_dtype"] = TORCH_NAMES[m["dtype"]]
        data.pop("transformers_version", None)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, indent=2, sort_keys=True)
        f.write("\n")


# ---- safetensors ----

def write_weights(folder, tensors, shards):
    """One file, or SHARDS files with an index; consecutive tensors go round the shards, so that a layer is never in one."""
    if shards == 1:
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        return
    names, weight_map = sorted(tensors), {}
    for s in range(shards):
        file = f"model-{s + 1:05}-of-{shards:05}.safetensors"
        part = {n: tensors[n] for n in names[s::shards]}
        save_file(part, os.path.join(folder, file), metadata={"format": "pt"})
        weight_map.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}, f, indent=2)
        f.write("\n")


def read_weights(folder):
    out = {}
    for file in sorted(os.listdir(folder)):
        if file.endswith(".safetensors"):
            out.update(load_file(os.path.join(folder, file)))
    return out

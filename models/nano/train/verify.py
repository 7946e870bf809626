# SPDX-License-Identifier: LGPL-2.1-or-later
"""Loads the exported checkpoint into transformers' InternVL and compares it, in fp32, with the trainer's own forward.

    verify.py MODEL     exits non-zero if logits differ by more than 1e-3 or any greedy token does
"""
import json
import sys

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import InternVLConfig, InternVLForConditionalGeneration, Qwen2Tokenizer

import generate
import scenes
import text as T


def native(folder):
    """The original layout's config and names, turned into transformers' own."""
    c = json.load(open(f"{folder}/config.json"))
    v, tx = c["vision_config"], T.Text(folder)
    vision = dict(hidden_size=v["hidden_size"], num_hidden_layers=v["num_hidden_layers"], num_attention_heads=v["num_attention_heads"],
                  intermediate_size=v["intermediate_size"], image_size=[v["image_size"]] * 2, patch_size=[v["patch_size"]] * 2,
                  attention_bias=v["qkv_bias"], use_qk_norm=v["qk_normalization"], norm_type=v["norm_type"], layer_norm_eps=v["layer_norm_eps"],
                  hidden_act=v["hidden_act"], use_absolute_position_embeddings=True, use_mask_token=False, use_mean_pooling=True)
    cfg = InternVLConfig(vision_config=vision, text_config=c["llm_config"], image_token_id=tx.context, image_seq_length=T.VISUAL,
                         downsample_ratio=c["downsample_ratio"], tie_word_embeddings=False)
    cfg._attn_implementation = "eager"
    model = InternVLForConditionalGeneration(cfg).float().eval()
    out = {}
    for k, t in load_file(f"{folder}/model.safetensors").items():
        t = t.float()
        if ".attn.qkv." in k:
            for part, rows in zip("qkv", t.chunk(3)):
                out[k.replace("attn.qkv", f"attention.{part}_proj")] = rows
        else:
            out[k] = t
    names = [("vision_model.", "model.vision_tower."), ("encoder.layers.", "encoder.layer."), ("class_embedding", "cls_token"),
             ("position_embedding", "position_embeddings"), ("patch_embedding.", "patch_embeddings.projection."), ("attn.proj.", "attention.projection_layer."),
             ("norm1.", "layernorm_before."), ("norm2.", "layernorm_after."), (".ls1", ".lambda_1"), (".ls2", ".lambda_2"),
             ("mlp1.0.", "model.multi_modal_projector.layer_norm."), ("mlp1.1.", "model.multi_modal_projector.linear_1."),
             ("mlp1.3.", "model.multi_modal_projector.linear_2."), ("language_model.lm_head.", "lm_head."), ("language_model.model.", "model.language_model.")]
    for a, b in names:
        out = {k.replace(a, b): t for k, t in out.items()}
    missing, extra = model.load_state_dict(out, strict=False)
    assert not missing and not extra, (missing, extra)
    return model


def main(folder):
    tok, tx = Qwen2Tokenizer.from_pretrained(folder), T.Text(folder)
    theirs, ours = native(folder), generate.load(folder)
    rng = np.random.default_rng(7)
    worst, same, total = 0, 0, 0
    for i in range(20):
        n = (1, 2, 4, 8)[i % 4]
        frames, _ = scenes.render(rng, scenes.sample(rng, n, 10**6, T.WORDS))
        prompt = T.open_prompt(n) + T.ask(("Describe this video.", "What color is it?")[i // 4 % 2])
        ids = tok(prompt, add_special_tokens=False)["input_ids"]
        assert ids == tx.tok.encode(prompt, add_special_tokens=False).ids
        pixels = generate.M.normalised(frames)
        ids = torch.tensor([ids])
        with torch.no_grad():
            a = theirs(input_ids=ids, pixel_values=pixels).logits[0]
            b = generate.logits(ours, torch.from_numpy(frames), ids, tx)[0]
            worst = max(worst, (a - b).abs().max().item())
            out = theirs.generate(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False,
                                  eos_token_id=tx.end, pad_token_id=tx.end)[0, ids.shape[1]:].tolist()
        mine = generate.answer(ours, tx, frames, [], whole=[prompt])[0]
        total += 1
        same += tx.tok.decode([t for t in out if t != tx.end], skip_special_tokens=False) == mine
    print(f"largest logit difference {worst:.2e}; greedy answers equal {same} of {total}")
    return worst > 1e-3 or same != total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

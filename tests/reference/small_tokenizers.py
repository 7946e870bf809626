"""The small tokenizers of the golden models, and reference encoders/decoders for both families.

Qwen2: the reference is transformers' Qwen2Tokenizer. InternLM2: its tokenizer is remote code, not part of
transformers; InternLM2Tokenizer below is that class's behaviour (PreTrainedTokenizer's split on added tokens, then
SentencePiece on each span, <s> in front), checked against transformers' SentencePieceBackend.
"""
import io
import json
import os
import re

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as sp_pb
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from corpus import PARAGRAPHS

# In this order, as the training code adds them; all special.
INTERNVL_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
KEPT_TAGS = ["<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]  # the engine leaves these in its answers

# Qwen2.5's added tokens, in id order, and whether the tokenizer calls them special (skipped when decoding).
QWEN_TOKENS = [(t, True) for t in (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>").split()]
QWEN_TOKENS += [(t, False) for t in (
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|>"
).split()]

INTERNLM2_TOKENS = ["<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>"]


def dump(path, data):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, indent=2)
        f.write("\n")


# ---- Qwen2 ----

def train_qwen2(size):
    """Byte-level BPE of SIZE pieces -> (vocab dict, list of merges)."""
    t = Tokenizer(models.BPE())
    ref = Qwen2Tokenizer(vocab={"a": 0}, merges=[])  # for its normaliser and pre-tokeniser
    t.normalizer = ref._tokenizer.normalizer
    t.pre_tokenizer = ref._tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    t.train_from_iterator(PARAGRAPHS, trainer)
    model = json.loads(t.to_str())["model"]
    return model["vocab"], [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]


def write_qwen2(folder, vocab, merges, only_json=False):
    """Tokenizer files of a Qwen2 checkpoint: the separate files, or tokenizer.json alone."""
    os.makedirs(folder, exist_ok=True)
    tokens = QWEN_TOKENS + [(t, True) for t in INTERNVL_TOKENS]
    added = [AddedToken(t, special=s, normalized=False) for t, s in tokens]
    if only_json:
        tok = Qwen2Tokenizer(vocab=vocab, merges=merges)
        tok.add_tokens(added)
        tok.backend_tokenizer.save(os.path.join(folder, "tokenizer.json"))
    else:
        dump(os.path.join(folder, "vocab.json"), vocab)
        with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
            f.write("#version: 0.2\n")
            f.writelines(f"{a} {b}\n" for a, b in merges)
        dump(os.path.join(folder, "added_tokens.json"), {t: len(vocab) + i for i, (t, _) in enumerate(tokens)})
    decoder = {str(len(vocab) + i): dict(content=t, lstrip=False, normalized=False, rstrip=False, single_word=False,
                                         special=s) for i, (t, s) in enumerate(tokens)}
    dump(os.path.join(folder, "tokenizer_config.json"), {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": decoder, "bos_token": None,
        "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>", "errors": "replace",
        "model_max_length": 8192, "pad_token": "<|endoftext|>", "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None})


class Qwen2:
    """Reference tokenizer of a folder written by write_qwen2."""
    bos = []

    def __init__(self, folder):
        path = os.path.join(folder, "tokenizer.json")
        if os.path.exists(path):
            self.tok = Qwen2Tokenizer(tokenizer_object=Tokenizer.from_file(path))
            self.tok._tokenizer = Tokenizer.from_file(path)
        else:
            vocab = json.load(open(os.path.join(folder, "vocab.json"), encoding="utf-8"))
            lines = open(os.path.join(folder, "merges.txt"), encoding="utf-8").read().split("\n")
            self.tok = Qwen2Tokenizer(vocab=vocab, merges=[tuple(m.split(" ")) for m in lines[1:] if m])
            config = json.load(open(os.path.join(folder, "tokenizer_config.json"), encoding="utf-8"))
            added = sorted(config["added_tokens_decoder"].items(), key=lambda kv: int(kv[0]))
            for want, t in added:
                self.tok._tokenizer.add_special_tokens([AddedToken(**t)]) if t["special"] else \
                    self.tok._tokenizer.add_tokens([AddedToken(**t)])
                assert self.tok._tokenizer.token_to_id(t["content"]) == int(want), t
        self.raw = self.tok._tokenizer
        self.size = self.raw.get_vocab_size()
        self.added = {t.content: i for i, t in self.raw.get_added_tokens_decoder().items()}
        self.special = {i for i, t in self.raw.get_added_tokens_decoder().items() if t.special}

    def encode(self, text):
        return self.raw.encode(text, add_special_tokens=False).ids

    def decode(self, ids, skip=True):
        return self.raw.decode(ids, skip_special_tokens=skip)

    def is_odd_byte(self, i):
        """A piece that is a lone byte >= 0x80."""
        p = self.raw.id_to_token(i)
        return i not in self.raw.get_added_tokens_decoder() and len(p) == 1 and ord(p) > 126

    def id(self, token):
        return self.added[token]


# ---- InternLM2 ----

def train_internlm2(size):
    """SentencePiece BPE with byte fallback; the last six pieces are placeholders, as in the original file, whose public
    names (<|im_start|> ...) come from tokenizer_config.json."""
    out = io.BytesIO()
    # Repeating some of the text pushes the other scripts out of the covered 98 %: they become bytes.
    lines = [line for p in PARAGRAPHS + 8 * PARAGRAPHS[1:8] for line in p.split("\n") if line]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=size - len(INTERNLM2_TOKENS),
        byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        character_coverage=0.98, allow_whitespace_only_pieces=True, unk_id=0, bos_id=1, eos_id=2, num_threads=1,
        minloglevel=2)
    m = sp_pb.ModelProto.FromString(out.getvalue())
    for k in range(len(INTERNLM2_TOKENS)):
        m.pieces.add(piece=f"[UNUSED_TOKEN_{140 + k}]", score=-1e6 - k, type=sp_pb.ModelProto.SentencePiece.NORMAL)
    m.trainer_spec.ClearField("input")
    m.trainer_spec.vocab_size = size
    return m.SerializeToString()


def internlm2_added(model_bytes):
    n = len(sp_pb.ModelProto.FromString(model_bytes).pieces)
    tokens = ["<unk>", "<s>", "</s>"] + [None] * (n - 3 - len(INTERNLM2_TOKENS)) + INTERNLM2_TOKENS + INTERNVL_TOKENS
    return {i: t for i, t in enumerate(tokens) if t}


def fast_internlm2(model_bytes):
    """The same model as a tokenizer.json, as the -hf conversion makes it (transformers' Llama conversion, with the
    prefix space set to never and the added tokens at their original ids)."""
    m = sp_pb.ModelProto.FromString(model_bytes)
    added = internlm2_added(model_bytes)
    vocab = {added.get(i, p.piece): i for i, p in enumerate(m.pieces)}
    # Rank of a merge: score of its result (higher first), then the piece order.
    merges = []
    for i, p in enumerate(m.pieces):
        if p.type != p.NORMAL or i in added:
            continue
        local = [(p.piece[:k], p.piece[k:]) for k in range(1, len(p.piece))
                 if p.piece[:k] in vocab and p.piece[k:] in vocab]
        local.sort(key=lambda ab: (vocab[ab[0]], vocab[ab[1]]))
        merges += [(p.score, ab) for ab in local]
    merges.sort(key=lambda sm: -sm[0])
    t = Tokenizer(models.BPE(vocab, [ab for _, ab in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=False)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    for i, tok in added.items():
        t.add_special_tokens([AddedToken(tok, special=True, normalized=False)])
        assert t.token_to_id(tok) == i, (tok, i)
    return t


def write_internlm2(folder, model_bytes, only_json=False, hf=False):
    os.makedirs(folder, exist_ok=True)
    added = internlm2_added(model_bytes)
    n = len(sp_pb.ModelProto.FromString(model_bytes).pieces)
    if not only_json:
        with open(os.path.join(folder, "tokenizer.model"), "wb") as f:
            f.write(model_bytes)
    if hf:
        fast_internlm2(model_bytes).save(os.path.join(folder, "tokenizer.json"))
    else:
        dump(os.path.join(folder, "added_tokens.json"), {t: i for i, t in added.items() if i >= n})
    decoder = {str(i): dict(content=t, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
               for i, t in added.items()}
    dump(os.path.join(folder, "tokenizer_config.json"), {
        "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder, "bos_token": "<s>",
        "clean_up_tokenization_spaces": False, "eos_token": "</s>", "model_max_length": 8192, "pad_token": "</s>",
        "tokenizer_class": "LlamaTokenizer" if hf else "InternLM2Tokenizer", "unk_token": "<unk>"})


class InternLM2:
    """Reference tokenizer of a folder written by write_internlm2, on SentencePiece itself."""
    bos = [1]

    def __init__(self, model_bytes):
        self.sp = spm.SentencePieceProcessor(model_proto=model_bytes)
        by_id = internlm2_added(model_bytes)
        self.added = {t: i for i, t in by_id.items()}
        self.special = set(by_id)
        self.size = max(by_id) + 1
        # Longest first: at one position a longer added token wins.
        self.split = re.compile("(" + "|".join(re.escape(t) for t in sorted(self.added, key=len, reverse=True)) + ")")

    def encode(self, text):
        ids = []
        for part in self.split.split(text):
            if part:
                ids += [self.added[part]] if part in self.added else self.sp.encode(part)
        return ids

    def decode(self, ids, skip=True):
        """Without skipping, the original puts spaces round special tokens; here they stand as they are."""
        out, run = "", []
        names = {i: t for t, i in self.added.items()}
        for i in ids:
            if i in names:
                if not skip:
                    out += (self.sp.decode(run) if run else "") + names[i]
                    run = []
            else:
                run.append(i)
        return out + (self.sp.decode(run) if run else "")

    def is_odd_byte(self, i):
        return i < self.sp.get_piece_size() and self.sp.is_byte(i)

    def id(self, token):
        return self.added[token]

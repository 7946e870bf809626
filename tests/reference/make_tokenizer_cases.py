"""Tokenizer goldens: tests/golden/tokenizer/*.jsonl.

  python make_tokenizer_cases.py

NAME.jsonl: {"text", "ids"}; NAME-decode.jsonl: {"ids", "text", "text_tags"}. NAME: qwen2-small and internlm2-small (the
tokenizers of the golden checkpoint folders), qwen2 (the real vocabulary, see make_qwen_tokenizer.py).
"""
import itertools
import json
import os
import random
import tempfile
import unicodedata

import tiktoken

import make_qwen_tokenizer
import small_tokenizers as st
from corpus import PARAGRAPHS
from make_models import GOLDEN

BLOCKS = {  # (first, last), characters assigned since Unicode 3.2 only: newer tables don't change what they are
    "latin": (0x20, 0x24F), "ipa": (0x250, 0x2AF), "combining": (0x300, 0x34F), "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x4FF), "armenian": (0x531, 0x587), "hebrew": (0x591, 0x5F4), "arabic": (0x60C, 0x6FE),
    "syriac": (0x700, 0x74A), "devanagari": (0x901, 0x970), "bengali": (0x981, 0x9FA), "tamil": (0xB82, 0xBF2),
    "thai": (0xE01, 0xE5B), "tibetan": (0xF00, 0xFCF), "myanmar": (0x1000, 0x1059), "georgian": (0x10A0, 0x10FB),
    "jamo": (0x1100, 0x11F9), "ethiopic": (0x1200, 0x137C), "cherokee": (0x13A0, 0x13F4), "khmer": (0x1780, 0x17E9),
    "mongolian": (0x1800, 0x18A9), "latin extended": (0x1E00, 0x1EF9), "greek extended": (0x1F00, 0x1FFE),
    "punctuation": (0x2000, 0x2063), "super/sub": (0x2070, 0x20B1), "letterlike": (0x2100, 0x214B),
    "number forms": (0x2153, 0x2183), "arrows": (0x2190, 0x21FF), "math": (0x2200, 0x22FF),
    "technical": (0x2300, 0x23CE), "enclosed": (0x2460, 0x24FE), "boxes": (0x2500, 0x25FF),
    "symbols": (0x2600, 0x267D), "dingbats": (0x2701, 0x27BE), "cjk punctuation": (0x3000, 0x303F),
    "hiragana": (0x3041, 0x309F), "katakana": (0x30A0, 0x30FF), "bopomofo": (0x3105, 0x312C),
    "cjk": (0x4E00, 0x9FA5), "hangul": (0xAC00, 0xD7A3), "cjk compatibility": (0xF900, 0xFA6A),
    "presentation": (0xFB00, 0xFDFB), "fullwidth": (0xFF01, 0xFFEE), "music": (0x1D100, 0x1D1DD),
    "math letters": (0x1D400, 0x1D7FF), "gothic": (0x10330, 0x1034A), "cjk extension b": (0x20000, 0x2A6D6),
}

HAND = [
    "", " ", "  ", "a", " a", "a ", "  a  b   c    ", "\n", "\r\n", "\n\n\n", " \n ", "\t\tx", "a\n b\n\n  c\r\n\r\nd",
    # NFC: composition, reordering, exclusions, singletons, Hangul
    "e\u0301", "E\u0301\u0323", "e\u0323\u0301", "q\u0307\u0323", "\u1e9b\u0323", "\u212b \u2126 \u212a", "\u0958\u095c",
    "\u1100\u1161\u11a8", "\uac00\u11a8", "\uf900\uf90a", "\U0001d15e\U0001d165", "a\u0315\u0300\u05ae\u0062", "\u0344",
    "\u0f73\u0f75", "\u09c7\u09be", "o\u0302\u0323", "Việt Nam đẹp", "Vie\u0323\u0302t", "\u0301abc", "x\u0301\u0301\u0301",
    "A\u030a", "\u03b9\u0308\u0301", "\u0627\u0655\u0654", "ﬁ ﬂ ﬆ", "ſ K Å", "İstanbul ıI",
    # contractions, in every case and with look-alikes
    "I'm you're he'll they've she'd it's can't", "I'M YOU'RE HE'LL THEY'VE SHE'D IT'S CAN'T", "'S'T'RE'VE'M'LL'D", "'ſ 'ſt",
    "x'sy 'stop 'l 'v 'r 're'd ''s '''", "‘s ’s ’t don’t", "'\u0073\u0301", "a's1 1's .'s  's\n's",
    # emoji
    "😀😂🤣", "👍🏽👋🏿", "👩‍👩‍👧‍👦 👨🏻‍💻", "🇩🇪🇫🇷🇯🇵", "❤️ ❤ ✈︎", "1️⃣2️⃣#️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "a😀b 😀 😀",
    # controls and odd spaces
    "\x01\x02\x1b[0m\x7f", "a\x0bb\x0cc", "a\x1cb\x1dc\x1ed\x1f", "a\x85b\xa0c\u1680d\u180ee", "\u2000\u2001\u2028\u2029\u202f\u205f",
    "a\u3000b\u3000\u3000c", "\ufeffbom \u200bzw\u200cnj\u200dj \u2060", "\u200e\u200f\u202a\u202e", "\ufffd\ufffe\uffff", "\ue000\uf8ff",
    "x\u00ady", "\u0378 \U000e0001 \U0010fffd",
    # digits of many kinds
    "1234567890", "3.14 1e-5 0x1F 1_000", "٣٤٥ ५६ 三四 Ⅷ ½ ² ①", "2024-12-06T10:30:59Z", "a1b22c333", "１２３",
    # special-token strings, whole, nested, cut and glued
    "<|im_start|>user\nhi<|im_end|>\n", "<|im_end|>", "<|im_end", "im_end|>", "<<|im_end|>>", "<|im_end|><|im_end|>",
    "a<|im_end|>b", "a <|im_end|> b", "\n<|im_end|>\n\n", "<img><IMG_CONTEXT><IMG_CONTEXT></img>", "< img >", "<IMG>",
    "<ref>a cat</ref><box>[[12, 34, 567, 890]]</box>", "<quad>1</quad>", "<|endoftext|>x", "<s> a </s> <unk>", "<s></s>",
    "<tool_call>\n{\"a\": 1}\n</tool_call>", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "<|vision_start|><|image_pad|>",
    "<|plugin|><|interpreter|><|action_end|><|action_start|>", "[UNUSED_TOKEN_141]", "<0x41><0x0A>", "▁a▁▁b ▁", "Ġa Ċ",
    "<|im_start|>système", "e\u0301<|im_end|>\u0301", "<image>\nWhat?", "Frame1: <image>\n", "<IMG_CONTEXT", "<</img>",
    # long runs
    "a" * 300, " " * 120, "\n" * 50, "ab" * 150, "é" * 90, "哈" * 100, "=" * 200, "1" * 80, "😀" * 40, " a" * 100,
    "\r" * 9 + "\n" * 9, "-" * 33 + "\n" + "*" * 33,
]


def texts(special):
    rng = random.Random(25)
    out = list(HAND) + PARAGRAPHS + ["\n".join(PARAGRAPHS[:6]), " ".join(PARAGRAPHS)]
    out += [line for p in PARAGRAPHS for line in p.split("\n")]
    # Every triple of what the pre-tokeniser tells apart, and longer random ones.
    marks = [" ", "\n", "\r", "\t", "a", "1", "."]
    out += ["".join(t) for t in itertools.product(marks, repeat=3)]
    more = marks + ["'", "s", "é", "中", "\u00a0", "\u3000", "e\u0301", "😀", "_", "\u0301", "\u2028", "T", "²"]
    out += ["".join(rng.choices(more, k=rng.randint(4, 14))) for _ in range(330)]
    pools = {}
    for name, (a, b) in BLOCKS.items():
        pools[name] = [chr(c) for c in range(a, b + 1) if unicodedata.ucd_3_2_0.category(chr(c)) not in ("Cn", "Cs")
                       and unicodedata.category(chr(c)) != "Cn"]
        for _ in range(6):
            words = ["".join(rng.choices(pools[name], k=rng.randint(1, 7))) for _ in range(rng.randint(1, 5))]
            out.append(rng.choice(["", " "]) + rng.choice([" ", " ", "-", ", "]).join(words))
    every = [c for p in pools.values() for c in p]
    out += ["".join(rng.choices(every, k=rng.randint(2, 16))) for _ in range(120)]
    # Slices of real text, cut anywhere, some with special tokens in them.
    whole = "\n".join(PARAGRAPHS)
    for k in range(260):
        a = rng.randrange(len(whole) - 90)
        s = whole[a:a + rng.randint(3, 90)]
        if k % 3 == 0:
            at = rng.randrange(len(s) + 1)
            s = s[:at] + rng.choice(special) + s[at:]
        out.append(s if k % 4 else unicodedata.normalize("NFD", s))
    return list(dict.fromkeys(out))


def tagged(tok, ids):
    """Decoded with ref, box, quad and their ends left in, other special tokens left out."""
    tags = {tok.id(t): t for t in st.KEPT_TAGS}
    out, run = "", []
    for i in ids:
        if i in tags:
            out, run = out + tok.decode(run) + tags[i], []
        else:
            run.append(i)
    return out + tok.decode(run)


def decode_cases(tok, encoded, fast=None):
    rng = random.Random(5)
    lone = [i for i in range(tok.size) if tok.is_odd_byte(i)]
    rest = [i for i in range(tok.size) if i not in set(lone) and i not in set(tok.added.values())]
    added = sorted(tok.added.values())
    out = [[i] for i in (range(tok.size) if tok.size < 1000 else rng.sample(range(tok.size), 300) + lone + added)]
    for ids in rng.sample([e for e in encoded if len(e) > 3], 150):  # pieces of real text, cut within characters
        a = rng.randrange(len(ids) - 2)
        out.append(ids[a:a + rng.randint(2, 30)])
    for _ in range(250):
        weights = rng.choice([(1, 0, 0), (6, 3, 1), (1, 8, 1), (8, 1, 3)])
        out.append([rng.choice(rng.choices([rest, lone, added], weights)[0]) for _ in range(rng.randint(2, 14))])
    # Hand-made byte runs: truncated, overlong, surrogate, beyond U+10FFFF, stray continuation.
    byte = {b: i for b, i in zip(range(256), byte_ids(tok))}
    for run in ("e4bda0", "e4bd", "e4", "f09f9880", "f09f98", "f09f", "f0", "c0af", "e08080", "eda080", "f4908080", "80",
                "bfbf", "e4bd41", "f09f9841", "e4bde4bda0", "fffe", "c3", "c3a9c3", "41c3", "c341", "f8888080", "e1808080"):
        out.append([byte[b] for b in bytes.fromhex(run)])
        out.append([byte[b] for b in b"a" + bytes.fromhex(run) + b"b"])
    return list(map(list, dict.fromkeys(map(tuple, out))))


def byte_ids(tok):
    if isinstance(tok, st.InternLM2):
        return [tok.sp.piece_to_id(f"<0x{b:02X}>") for b in range(256)]
    chars = make_qwen_tokenizer.byte_chars()
    return [tok.raw.token_to_id(chars[b]) for b in range(256)]


def write(name, tok):
    folder = os.path.join(GOLDEN, "tokenizer")
    os.makedirs(folder, exist_ok=True)
    cases = [(t, tok.encode(t)) for t in texts(list(tok.added))]
    decodes = [(ids, tok.decode(ids), tagged(tok, ids)) for ids in decode_cases(tok, [i for _, i in cases])]
    dump = lambda x: json.dumps(x, ensure_ascii=False, separators=(",", ":"))
    with open(os.path.join(folder, name + ".jsonl"), "w", encoding="utf-8") as f:
        f.writelines(dump({"text": t, "ids": ids}) + "\n" for t, ids in cases)
    with open(os.path.join(folder, name + "-decode.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(dump({"ids": i, "text": t, "text_tags": g}) + "\n" for i, t, g in decodes)
    print(f"{name}: {len(cases)} texts, {len(decodes)} decodes")
    return cases, decodes


def check_internlm2(tok, model, cases, decodes):
    """transformers' SentencePiece tokenizer must encode alike. The fast tokenizer (tokenizer.json, the only file in hf2
    folders) differs in a few known ways; it gets goldens of its own."""
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend
    with tempfile.TemporaryDirectory() as d:
        st.write_internlm2(d, model)
        slow = SentencePieceBackend(vocab_file=os.path.join(d, "tokenizer.model"), unk_token="<unk>", bos_token="<s>",
                                    eos_token="</s>", pad_token="</s>")
    # The .model holds placeholders for six of them, so ids are given rather than assigned.
    for t, i in tok.added.items():
        slow._added_tokens_decoder[i] = st.AddedToken(t, special=True, normalized=False)
        slow._added_tokens_encoder[t] = i
    slow._update_trie()
    bad = [t for t, ids in cases if t and [slow.convert_tokens_to_ids(x) for x in slow.tokenize(t)] != ids]
    assert not bad, bad[:3]
    fast = st.fast_internlm2(model)
    enc = [(t, fast.encode(t, add_special_tokens=False).ids) for t, _ in cases]
    differ = [(t, a, b) for (t, a), (_, b) in zip(cases, enc) if a != b]
    dec = [(ids, t, fast.decode(ids, skip_special_tokens=True)) for ids, t, _ in decodes]
    print(f"  fast tokenizer: {len(differ)} encodings and {sum(a != b for _, a, b in dec)} decodings differ")
    for t, a, b in differ[:8]:
        print("   ", repr(t[:60]), a[:12], b[:12])
    for i, a, b in [x for x in dec if x[1] != x[2]][:8]:
        print("   ", i, repr(a), repr(b))
    return fast


def main():
    with tempfile.TemporaryDirectory() as d:
        st.write_qwen2(d, *st.train_qwen2(460))
        write("qwen2-small", st.Qwen2(d))
    model = st.train_internlm2(640)
    tok = st.InternLM2(model)
    check_internlm2(tok, model, *write("internlm2-small", tok))
    with tempfile.TemporaryDirectory() as d:
        st.write_qwen2(d, *make_qwen_tokenizer.build())
        cases, _ = write("qwen2", st.Qwen2(d))
    # The package's own encoder: tiktoken, which has no NFC and other special tokens.
    enc = tiktoken.Encoding("qwen", pat_str=st.Qwen2Tokenizer.__init__.__globals__["PRETOKENIZE_REGEX"],
                            mergeable_ranks=make_qwen_tokenizer.read_ranks(), special_tokens={})
    n = 0
    for text, ids in cases:
        if all(i < 151643 for i in ids):
            n += 1
            if enc.encode_ordinary(unicodedata.normalize("NFC", text)) != ids:
                print("  tiktoken differs:", repr(text[:80]))
    print(f"  {n} compared with tiktoken")


if __name__ == "__main__":
    main()

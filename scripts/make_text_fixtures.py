#!/usr/bin/env python3
"""Writes tests/golden/text: small tokenizers, chat templates, and what the reference makes of them.

Needs the packages tokenizers and transformers. The output is committed; run again to extend it.
"""

import json
import pathlib
import random

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "text"

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|"
         r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

TRAINING = [
    "The quick brown fox jumps over the lazy dog. It's 12345 o'clock, isn't it? They've WE'LL we'd.",
    "def main(argc: int) -> None:\n    return [x ** 2 for x in range(10)]  # comment\n\n\n",
    "Größe, naïve café, Ünïcödé. Привет, мир! 你好，世界。こんにちは世界。안녕하세요 세계. שלום עולם. مرحبا بالعالم",
    "aaaa bbbb    cccc\t\tdddd\r\neeee 1,000,000.00 3.14159 2024-11-24 <tag attr=\"v\"/> {json: [1, 2]}",
    "emoji 😀👍🏽 and 👨‍👩‍👧‍👦 families 🇩🇪 flags; ½ ⅷ ² ٣ ३ digits",
]

TORTURE = [
    "", " ", "  ", "\n", "\r\n", "\t", "a", " a", "a ", "  a  b   c    ", "Hello world", "hello  World ",
    "It's we'll THEY'RE i'D I'M you've don't 'tis 'S 's' 'ſ ' ''", "12345 1 22 333 4444 a1b2c3 1.5e-10 ٣٤٥ ३४ ½⅓ ²³ Ⅷ 一二三",
    "a\n\nb\n c \n  d\t\n\r\n\r\ne\r\rf \n", " \n \n x", "x \n", "tabs\t\tand\tmore \t mixed", "trailing spaces     ",
    "😀👍🏽 👨‍👩‍👧‍👦🇩🇪🏳️‍🌈 ☃️❤️", "e\u0301 n\u0303 a\u0308\u0323 \u1e9b\u0323 \u212b \ufb01 \uff21\uff11 \u3392", "Ｆｕｌｌ　ｗｉｄｔｈ",
    "שלום עולם مرحبا بالعالم ‏rtl‎ نص١٢٣", "你好，世界。こんにちは世界。안녕하세요 세계 ภาษาไทย हिन्दी தமிழ்",
    "\u0000\u0001\u0007\u001b[0m\u007f\u0080\u009f\u00ad\ufeff\u200b\u2060\ufffd\ufffe\uffff\U0010ffff",
    "\u00a0nbsp\u2003em\u2028line\u2029para\u3000ideo\u180emvs\u0085nel\u1680ogham",
    "supercalifragilisticexpialidocious" * 8, "x" * 200, "ab" * 150, "!" * 90, " " * 130 + "end", "1" * 77, "\n" * 55,
    "http://user:pw@example.com:8080/a/b?c=d&e=f#g", "C++ && || != === <<= ... --- ___ #!/bin/sh $HOME `x` ~/",
    "if (x == 1) {\r\n\treturn \"y\\n\";\r\n}\r\n", "Größe ÄÖÜ İstanbul ıI ǅ ΣΑΣ ß ẞ ŉ", "𝕳𝖊𝖑𝖑𝖔 𐐀𐐨 𠀀𠀁 𞤀",
    "<|endoftext|>", "a<|endoftext|>b", "<|endoftext|><|endoftext|>", " <|endoftext|> ", "<|endoftext", "<|end|><|endoftext|>x",
    "hello <mask> world<mask>", "  <mask>  ", "x<left>y  <left>  z", "x<right>  y<right>", "word wordy sword word. Word_word wörd word",
    "café cafe\u0301 Café", "ZZ zz Zz zZ aZZb ZZZ ZZZZZ", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "\u0344\u0958\u2126",
    "ᾳ ΐ ﷺ ﬃ ㎏ ① ℌ ½ ｶﾞ", "각 \u1100\u1161\u11a8 \u1112\u1161\u11ab", "\u0378\u0e00\u20c1 unassigned", "a\u0300\u0301\u0302\u0303\u0304b",
]

MORE_ADDED = [
    AddedToken("<mask>", lstrip=True, special=True, normalized=False),
    AddedToken("<left>", lstrip=True, rstrip=True, special=False, normalized=False),
    AddedToken("<right>", rstrip=True, special=False, normalized=False),
    AddedToken("word", single_word=True, special=False, normalized=False),
    AddedToken("café", special=False, normalized=True),
    AddedToken("ZZ", special=False, normalized=True), AddedToken("ZZZZ", special=False, normalized=True),
]


def byte_level(**kwargs):
    return pre_tokenizers.ByteLevel(**kwargs)


def build(pre, normalizer=None, post=None, size=420, added=(), **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.train_from_iterator(TRAINING * 3, trainer)
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    if post is not None:
        tokenizer.post_processor = post(tokenizer)
    return json.loads(tokenizer.to_str())


def template(tokenizer):
    ids = {name: tokenizer.token_to_id(name) for name in ("<|im_start|>", "<|endoftext|>")}
    return processors.TemplateProcessing(single="<|im_start|> $A <|endoftext|>",
                                         pair="$A $B", special_tokens=list(ids.items()))


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior, invert=invert),
        byte_level(add_prefix_space=False, use_regex=False)])


def as_strings(document):
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    return document


def ignoring_merges(document):
    document["model"]["ignore_merges"] = True
    known = document["model"]["vocab"]
    # Tokens that no merge reaches show the difference.
    for token in ("Ġworldwide", "supercalifragilistic", "ĠHello", "zz"):
        known.setdefault(token, max(known.values()) + 1)
    for token in document["added_tokens"]:
        token["id"] = known.get(token["content"], token["id"])
    return document


def without_some_bytes(document):
    vocab, merges = document["model"]["vocab"], document["model"]["merges"]
    dead = {token for token in vocab if ("x" in token or "Ć" in token) and "<|" not in token}
    for token in dead:
        vocab[token + "<dead>"] = vocab.pop(token)
    document["model"]["merges"] = [m for m in merges if not dead & {*m, "".join(m)}]
    document["model"]["unk_token"] = "<|endoftext|>"
    return document


def tokenizers():
    plain = byte_level(add_prefix_space=False)
    yield "gpt2", as_strings(build(plain, post=lambda t: processors.ByteLevel(trim_offsets=False)))
    yield "smollm", build(pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), plain]), added=MORE_ADDED)
    yield "prefix_space", build(byte_level(add_prefix_space=True), post=template, added=MORE_ADDED)
    yield "llama3", ignoring_merges(build(split(LLAMA3), post=lambda t: processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template(t)])))
    yield "qwen2", build(split(QWEN2), normalizer=normalizers.NFC(), added=MORE_ADDED)
    yield "o200k_removed", build(split(O200K, "removed", invert=True))
    yield "nfkc_lower", build(plain, normalizer=normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("ss", "ß"),
         normalizers.Prepend("_")]), added=MORE_ADDED)
    yield "nfd", build(plain, normalizer=normalizers.NFD(), added=MORE_ADDED)
    yield "digit_groups", build(pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False),
         pre_tokenizers.Split("e", "merged_with_next"),
         pre_tokenizers.Split(Regex(r"[.!?]+"), "merged_with_previous"),
         pre_tokenizers.Split(Regex(r"\s"), "contiguous"),
         byte_level(add_prefix_space=True, use_regex=True)]), size=330)
    unknown = without_some_bytes(build(plain, size=330))
    yield "unknown", unknown
    fused = json.loads(json.dumps(unknown))
    fused["model"]["fuse_unk"] = True
    yield "unknown_fused", fused
    dropped = json.loads(json.dumps(unknown))
    dropped["model"]["unk_token"] = None
    yield "unknown_dropped", dropped


def sentence(generator):
    pieces = [p for t in TRAINING + TORTURE for p in t.split(" ") if len(p) < 40]
    joins = ["", " ", "  ", "\n", " \n", "\t", "'s", "\u00a0"]
    return "".join(generator.choice(pieces) + generator.choice(joins)
                   for _ in range(generator.randrange(1, 12)))


def write(name, value, indent=None):
    OUT.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=(",", ":") if indent is None else None)
    (OUT / name).write_text(text.encode("utf-8", "surrogatepass").decode(), encoding="utf-8")


def main():
    generator = random.Random(0)
    texts = TORTURE + TRAINING + [sentence(generator) for _ in range(60)]
    write("corpus.json", texts, 0)
    for name, document in tokenizers():
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        (OUT / f"{name}.tokenizer.json").write_text(text, encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
        cases = []
        for sample in texts:
            ids = tokenizer.encode(sample).ids
            cases.append({"with_special": ids, "plain": tokenizer.encode(sample, add_special_tokens=False).ids,
                          "text": tokenizer.decode(ids, skip_special_tokens=False),
                          "clean": tokenizer.decode(ids, skip_special_tokens=True)})
        for case in cases:
            if case["plain"] == case["with_special"]:
                del case["plain"]
            if case["clean"] == case["text"]:
                del case["clean"]
        write(f"{name}.golden.json", cases, 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes tests/golden/text: small tokenizers, chat templates, and what the reference makes of them.

Needs the packages tokenizers, transformers and sentencepiece. The output is committed; run again to
extend it.
"""

import base64
import io
import json
import pathlib
import random
import tempfile

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

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

# What tokenizers for words and for SentencePiece's marks stumble over.
MORE_TORTURE = [
    "▁", "▁▁a", "a▁b ▁ c▁", " ▁ ", "a\u2581", "\u2582 lower", "<unk>", "x<unk>y<s>z</s>", "<0x41><0x0A>", "[UNK] [MASK] [CLS]x[SEP]",
    "no-one's well-known e.g. U.S.A. (and/or) [x] {y} <z> a_b __init__ 50% $5 €5 #1 @me «q» “q” ‘q’ — – … ·",
    "a.b,c;d:e!f?g", "....", "?!?!", "don ' t do not n't can n't 's 'm 've 're", "x" * 99, "x" * 100, "x" * 101, "é" * 101,
    "unaffable unwantedly 你好吗hello世界 漢字かな カタカナ 한국어 㐀 𠮷 豈", "ÀÉÎÕÜ àéîõü Å ñ ç ø ł đ ı İ ﬂ ﬁ ﬃ",
    "\u0301 \u0301a a\u0301\u0302b \ufb01\u0301 e\u0301\u0302 \u00e9\u0301", "\u0bcd\u0300 \u0958\u093c क्षि ক্ষ காட்சி น้ำ ກຳ",
    "\u200d\u200c\u200e\u200f\u202a \u2066x\u2069 \u00ad soft", "\ue000\uf8ff private \U000f0000 \U00100000", "\u0378\u0380 \u2fe0 \U0001fbfa \U0002fffe",
    "👩🏾‍🚀👩‍❤️‍💋‍👩 🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣ ☝🏿 🇺🇸🇪🇺 ❤︎", "\t\ta\tb \t", "\r\n\r\n\n\r", "\u3000\u3000全角　空白", "\x0b\x0c\x1c\x1d\x1e\x1f\x85 separators",
    "Hello  World   \u00a0  x", "   leading", "\u00a0leading", "\x01leading control", "\u0301leading mark", "\u7684leading", " a", "(", " (", "((a))",
    "ａｂｃ １２３ ＡＢＣ ① ⑩ ㈱ ℡ ™ ½ ² x² H₂O ℃ Å", "``quoted'' ''x``", "Ⅻ ⅻ ᾼ ΑΣ Σ ς", "Ꭰ ꭰ Ა ა Ꟊ \ua7dc \u1c89 \U00010d50 \U00016ea0", "\ud7fb\ud7c6 ᄀᆞᆨ",
    "a\u1ab0b \u0898 \u08d3\u064b \u1dfa", "<mask>leading", "ZZleading ZZ", "café ZZcafé", "xword word", "\u2581word ▁ZZ", "<right>   <left>   <mask>   end",
    "<|user|>\nHi<|end|>\n<|assistant|>\n", "<extra_id_0> and <extra_id_1>.", "0123456789 00 1e9 0x1F", "ab" * 40 + " " + "ab" * 40, "the " * 30, "\n".join("abc"),
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


DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPM_SPECIAL = ["<unk>", "<s>", "</s>"]

# Rules of the kinds that SentencePiece's own rule files hold, few enough for a fixture.
RULES = [
    ("ﬁ", "fi"), ("ﬂ", "fl"), ("①", "1"), ("½", "1⁄2"), ("™", "TM"), ("㈱", "(株)"), ("\u00a0", " "), ("\u3000", " "),
    ("\t", " "), ("\n", " "), ("\r", " "), ("\x01", ""), ("\u00ad", ""), ("\u200b", ""), ("\ufeff", ""), ("e\u0301", "é"), ("n\u0303", "ñ"),
    ("a\u0308", "ä"), ("a\u0308\u0323", "ạ̈"), ("ｶﾞ", "ガ"), ("ﾞ", "゙"), ("각", "gak"), ("ᄀ", "g"), ("\u200d", ""), ("❤", "♥"), ("…", "..."),
] + [(chr(c), chr(c - 0xFEE0)) for c in range(0xFF01, 0xFF5F)]


def charsmap():
    """The rules as SentencePiece compiles them."""
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "rules.tsv"
        rules.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n"
                                 for a, b in RULES), encoding="utf-8")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TRAINING * 3), model_writer=model, vocab_size=260, model_type="bpe",
            normalization_rule_tsv=str(rules), hard_vocab_limit=False, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()


def training():
    return TRAINING * 3 + sorted(DOCS.glob("*.md"))[0].read_text(encoding="utf-8").splitlines()[:60]


def part(component):
    return json.loads(component.__getstate__())


def trained(model, trainer, pre, normalizer=None):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(training(), trainer)
    return tokenizer


def assembled(tokenizer, pre, normalizer, decoder, post=None, added=()):
    """The tokenizer with parts other than those that it was trained with."""
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] not in BYTES]
    for name, value in (("pre_tokenizer", pre), ("normalizer", normalizer), ("decoder", decoder)):
        document[name] = value if value is None or isinstance(value, dict) else part(value)
    document["post_processor"] = None if post is None else part(post(tokenizer))
    return document


def around(before, after=None):
    def make(tokenizer):
        names = [name for name in (before, after) if name]
        single = " ".join(([before] if before else []) + ["$A"] + ([after] if after else []))
        return processors.TemplateProcessing(single=single, pair=single + " $B",
                                             special_tokens=[(n, tokenizer.token_to_id(n)) for n in names])
    return make


def spm_bpe(special=SPM_SPECIAL, with_bytes=True, alphabet=70, size=640, **model):
    trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=alphabet, show_progress=False,
                                  special_tokens=special + (BYTES if with_bytes else []))
    return trained(models.BPE(unk_token="<unk>", byte_fallback=with_bytes, **model), trainer,
                   pre_tokenizers.Metaspace())


def sentencepiece_kinds():
    prepend = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    stripping = decoders.Sequence(pieces + [decoders.Strip(" ", 1, 0)])
    yield "llama2", assembled(spm_bpe(fuse_unk=True), None, prepend, stripping, around("<s>"))
    yield "mistral", assembled(spm_bpe(fuse_unk=True), pre_tokenizers.Metaspace(prepend_scheme="first", split=False),
                               None, stripping, around("<s>"), MORE_ADDED)
    yield "phi3", assembled(spm_bpe(fuse_unk=True), None, prepend, stripping, None, [
        AddedToken("<|user|>", rstrip=True, special=True, normalized=False),
        AddedToken("<|end|>", rstrip=True, special=True, normalized=False),
        AddedToken("<|assistant|>", rstrip=True, special=True, normalized=True),
        AddedToken("word", special=False, normalized=True)])
    gemma = spm_bpe(["<pad>", "<eos>", "<bos>", "<unk>"], fuse_unk=True)
    yield "gemma", assembled(gemma, pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁"),
                             decoders.Sequence(pieces), around("<bos>"))
    for name, fuses in (("spm_unknown", False), ("spm_unknown_fused", True)):
        yield name, assembled(spm_bpe(with_bytes=False, alphabet=40, size=300, fuse_unk=fuses),
                              pre_tokenizers.Metaspace(), normalizers.Nmt(), decoders.Metaspace(),
                              around("<s>", "</s>"), MORE_ADDED)
    some_bytes = assembled(spm_bpe(alphabet=40, fuse_unk=True), pre_tokenizers.Metaspace(prepend_scheme="never"),
                           normalizers.Strip(left=True, right=True), stripping)
    for byte in ("<0xC3>", "<0xE4>", "<0xF0>"):
        some_bytes["model"]["vocab"]["<no " + byte] = some_bytes["model"]["vocab"].pop(byte)
    yield "some_bytes", some_bytes


def affix_kinds():
    """BPE whose tokens say where in a word they are."""
    words = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    cut = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
        byte_level(add_prefix_space=False)])
    clip = trained(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"), trainers.BpeTrainer(
        vocab_size=500, show_progress=False, end_of_word_suffix="</w>", special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())), cut, words)
    yield "clip", assembled(clip, cut, words, byte_level(), lambda t: processors.RobertaProcessing(
        ("<|endoftext|>", 1), ("<|startoftext|>", 0), trim_offsets=False, add_prefix_space=False))
    gpt = trained(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), trainers.BpeTrainer(
        vocab_size=420, limit_alphabet=60, show_progress=False, end_of_word_suffix="</w>", special_tokens=["<unk>"]),
        pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True))
    yield "openai_gpt", assembled(gpt, pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True),
                                  decoders.BPEDecoder(suffix="</w>"))
    prefixed = trained(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"), trainers.BpeTrainer(
        vocab_size=420, limit_alphabet=60, show_progress=False, continuing_subword_prefix="##", special_tokens=["<unk>"]),
        pre_tokenizers.Whitespace())
    yield "bpe_prefix", assembled(prefixed, pre_tokenizers.Whitespace(), None, decoders.WordPiece(prefix="##", cleanup=True))
    plain = build(byte_level(add_prefix_space=False))
    plain["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        plain["pre_tokenizer"], part(pre_tokenizers.Split("Ġ", "merged_with_next")), part(pre_tokenizers.FixedLength(length=4))]}
    yield "byte_level_first", plain
    mapped = build(byte_level(add_prefix_space=False), added=MORE_ADDED)
    mapped["normalizer"], mapped["pre_tokenizer"] = part(normalizers.ByteLevel()), part(pre_tokenizers.Split("Ġ", "merged_with_next"))
    yield "byte_normalizer", mapped


def word_piece(normalizer, pre, size=460, alphabet=90, **model):
    trainer = trainers.WordPieceTrainer(vocab_size=size, limit_alphabet=alphabet, show_progress=False,
                                        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return trained(models.WordPiece(unk_token="[UNK]", **model), trainer, pre, normalizer)


def word_piece_kinds():
    bert = pre_tokenizers.BertPreTokenizer()
    uncased = normalizers.BertNormalizer(lowercase=True)
    yield "bert_uncased", assembled(word_piece(uncased, bert), bert, uncased, decoders.WordPiece(), around("[CLS]", "[SEP]"))
    cased = normalizers.BertNormalizer(lowercase=False)
    yield "bert_cased", assembled(
        word_piece(cased, bert), bert, cased, decoders.WordPiece(cleanup=False),
        lambda t: processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]"))), MORE_ADDED)
    odd = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous")])
    yield "bert_odd", assembled(word_piece(odd, pre), pre, odd, None)
    accents = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip(left=False, right=True)])
    pre = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    short = assembled(word_piece(accents, pre), pre, accents, decoders.WordPiece(prefix="##", cleanup=True))
    short["model"]["max_input_chars_per_word"] = 12
    yield "short_words", short
    for name, behavior in (("punctuation_previous", "merged_with_previous"), ("punctuation_next", "merged_with_next"),
                           ("punctuation_removed", "removed")):
        pre = pre_tokenizers.Sequence([pre_tokenizers.CharDelimiterSplit(" "), pre_tokenizers.Punctuation(behavior)])
        yield name, assembled(word_piece(None, pre, size=300, alphabet=60), pre, None, decoders.WordPiece())


def unigram(normalizer, pre, size=420, special=("<s>", "<pad>", "</s>", "<unk>"), **trainer):
    return trained(models.Unigram(), trainers.UnigramTrainer(
        vocab_size=size, show_progress=False, special_tokens=list(special), unk_token="<unk>", **trainer), pre, normalizer)


def unigram_kinds():
    rules = {"type": "Precompiled", "precompiled_charsmap": charsmap()}
    always, first = pre_tokenizers.Metaspace(), pre_tokenizers.Metaspace(prepend_scheme="first")
    spaces = part(normalizers.Replace(Regex(" {2,}"), " "))
    sequence = {"type": "Sequence", "normalizers": [rules, part(normalizers.Strip(left=False, right=True)), spaces]}
    yield "xlm_roberta", assembled(unigram(None, always), always, sequence, decoders.Metaspace(), around("<s>", "</s>"), [
        AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    blanks = [AddedToken(f"<extra_id_{i}>", special=True, normalized=False) for i in range(3)]
    yield "t5", assembled(unigram(None, always, special=("<pad>", "</s>", "<unk>")), always, rules,
                          decoders.Metaspace(), around(None, "</s>"), blanks)
    quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
              normalizers.StripAccents(), normalizers.Lowercase()]
    yield "albert", assembled(unigram(normalizers.Sequence(quotes), first), first,
                              {"type": "Sequence", "normalizers": [part(q) for q in quotes] + [rules, spaces]},
                              decoders.Metaspace(prepend_scheme="first"), around("<s>", "</s>"), MORE_ADDED)
    pre = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    fallback = assembled(unigram(None, pre_tokenizers.Metaspace(), special=SPM_SPECIAL), pre, normalizers.NFKC(), decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Strip(" ", 0, 1)]))
    fallback["model"]["byte_fallback"] = True
    fallback["model"]["vocab"] += [[byte, 0.0] for byte in BYTES if byte not in ("<0xC3>", "<0xF0>")]
    # Equal sums: which way is taken is settled by the order of the search.
    ties = ["ab", "bc", "abc", "ca", "cab", "aa", "aaa", "x", "xx", "th", "he", "the"]
    fallback["model"]["vocab"] = [entry for entry in fallback["model"]["vocab"] if entry[0] not in ties]
    fallback["model"]["vocab"] += [[token, -3.25 * len(token)] for token in ties]
    yield "unigram_bytes", fallback


def later_kinds():
    yield from sentencepiece_kinds()
    yield from affix_kinds()
    yield from word_piece_kinds()
    yield from unigram_kinds()


def sentence(generator):
    pieces = [p for t in TRAINING + TORTURE for p in t.split(" ") if len(p) < 40]
    joins = ["", " ", "  ", "\n", " \n", "\t", "'s", "\u00a0"]
    return "".join(generator.choice(pieces) + generator.choice(joins)
                   for _ in range(generator.randrange(1, 12)))


def write(name, values):
    """A list, an item a line."""
    OUT.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values)
    (OUT / name).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def main():
    generator = random.Random(0)
    texts = TORTURE + TRAINING + [sentence(generator) for _ in range(60)] + MORE_TORTURE
    write("corpus.json", texts)
    for name, document in (*tokenizers(), *later_kinds()):
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
        write(f"{name}.golden.json", cases)


if __name__ == "__main__":
    main()

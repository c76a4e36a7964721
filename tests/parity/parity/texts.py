"""Text becomes the same tokens as the reference's: shown by losses, which every token changes."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from parity.comparison import open_model
from parity.harness import Context, assert_close, assert_equal, case
from parity.networks import make_llama

LINES = [
    "Plain words, with punctuation; and 12345 numbers 3.14.",
    "Ünïcödé, 漢字かな交じり文, Кириллица, עברית, العربية.",
    "emoji 👩‍👩‍👧‍👦 and flags 🇩🇪, combining e\u0301 and \u00e9",
    "    indented\n\tcode:\n\n\n  if x == 'y':  return  \"z\"",
    "it's I'll we've can't DON'T  two  spaces   three",
    "trailing spaces   ",
    "\u00a0non-breaking\u2003spaces\u200band zero width",
    "specials <|im_start|>user inside <|endoftext|> text",
]


def line_losses(directory: pathlib.Path, sequences: list[list[int]]) -> list[float]:
    model = open_model(directory)
    losses = []
    with torch.no_grad():
        for ids in sequences:
            batch = torch.tensor([ids])
            losses.append(model(input_ids=batch, labels=batch).loss.item())
    return losses


def lora_line_losses(context: Context, base: pathlib.Path, lines: list[dict]) -> tuple[list[float], int]:
    """One line a step at a learning rate that moves nothing: the loss of each line on the bare base."""
    (context.folder / "lines.jsonl").write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
    get_peft_model(open_model(base), LoraConfig(task_type="CAUSAL_LM")).save_pretrained(
        context.folder / "adapter"
    )
    context.run(
        "train", "--base", base, "--adapter", "adapter", "--data", "lines.jsonl", "--no-shuffle",
        "--compute", "f32", "--batch-size", 1, "--steps", len(lines), "--lr", 1e-30, "--schedule", "constant",
        "--warmup", 0, "--seq-len", 256, "--run-dir", "run",
    )  # fmt: skip
    events = [json.loads(x) for x in (context.folder / "run/metrics.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["type"] == "step"]
    return [step["loss"] for step in steps], sum(step["tokens"] for step in steps)


def compare_lines(context: Context, base: pathlib.Path, lines: list[dict], sequences: list[list[int]]) -> None:
    ours, _ = lora_line_losses(context, base, lines)
    theirs = line_losses(base, sequences)
    assert_equal("number of lines", len(ours), len(theirs))
    worst = assert_close("losses", torch.tensor(ours), torch.tensor(theirs), 1e-3)
    context.note(f"{len(lines)} lines, losses differ by {worst:.1e}")


@case
def text_lines_of_a_tiny_tokenizer(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    sequences = [tokenizer(line)["input_ids"] + [tokenizer.eos_token_id] for line in LINES]
    compare_lines(context, base, [{"text": line} for line in LINES], sequences)


@case
def text_lines_of_smollm2(context: Context) -> None:
    tokenizer = AutoTokenizer.from_pretrained(context.model)
    sequences = [tokenizer(line)["input_ids"] + [tokenizer.eos_token_id] for line in LINES]
    compare_lines(context, context.model, [{"text": line} for line in LINES], sequences)


@case
def chat_messages_of_smollm2(context: Context) -> None:
    dialogues = [
        [
            {"role": "user", "content": "Name a colour."},
            {"role": "assistant", "content": "Blue."},
        ],
        [
            {"role": "system", "content": "You answer in one word."},
            {"role": "user", "content": "Größe?"},
            {"role": "assistant", "content": "Groß."},
            {"role": "user", "content": "And  small?\n"},
            {"role": "assistant", "content": "Klein."},
        ],
    ]
    tokenizer = AutoTokenizer.from_pretrained(context.model)
    sequences = [
        tokenizer(tokenizer.apply_chat_template(d, tokenize=False), add_special_tokens=False)["input_ids"]
        for d in dialogues
    ]
    compare_lines(context, context.model, [{"messages": d} for d in dialogues], sequences)


# The kinds of tokenizers that are no byte-level BPE, as transformers keeps them in tokenizer.json.
KINDS = ["llama2", "mistral", "gemma", "clip", "bert_uncased", "bert_cased", "xlm_roberta", "t5", "albert", "unigram_bytes"]


@case
def text_lines_of_every_kind_of_tokenizer(context: Context) -> None:
    for kind in KINDS:
        text = (context.root / "tests/golden/text" / f"{kind}.tokenizer.json").read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
        apart = dataclasses.replace(context, folder=context.folder / kind)
        base = make_llama(context.root, apart.folder / "base", vocab_size=tokenizer.get_vocab_size())
        (base / "tokenizer.json").write_text(text, encoding="utf-8")
        (base / "tokenizer_config.json").write_text("{}", encoding="utf-8")
        end = open_model(base).config.eos_token_id
        sequences = [tokenizer.encode(line).ids for line in LINES]
        sequences = [ids if ids[-1] == end else ids + [end] for ids in sequences]
        compare_lines(apart, base, [{"text": line} for line in LINES], sequences)

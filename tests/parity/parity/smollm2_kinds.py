"""Thirty steps of PEFT's and of our training on a real model, for each kind of adapter."""

from __future__ import annotations

import json
import pathlib

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from parity.comparison import compare_runs, compare_training, open_model, text_blocks
from parity.harness import Context, assert_small, slow_case
from parity.networks import corpus
from parity.smollm2 import fresh_adapter

STEPS = 30
LENGTH = 64
BF16_DISTANCE = 1.5  # of PEFT's own distance from f32
KINDS: dict[str, dict[str, object]] = {
    "lora": dict(target_modules="all-linear"),
    "rslora": dict(target_modules=["q_proj", "v_proj", "down_proj"], use_rslora=True),
    "dora": dict(target_modules=["q_proj", "v_proj", "up_proj"], use_dora=True),
    "pissa": dict(target_modules=["k_proj", "v_proj"], init_lora_weights="pissa"),
    "modules_to_save": dict(target_modules=["q_proj"], modules_to_save=["norm"]),
    "lora_bias": dict(target_modules=["q_proj", "o_proj"], lora_bias=True),
}


def check(context: Context, settings: dict[str, object], **training: object) -> None:
    compare_training(
        context, context.model, fresh_adapter(context, **settings), corpus(context.root),
        **{**dict(steps=STEPS, batch=1, seq_len=LENGTH, lr=1e-3), **training},
    )  # fmt: skip


def add_case(kind: str, settings: dict[str, object]) -> None:
    def run(context: Context) -> None:
        check(context, settings)

    run.__name__ = f"real_training_{kind}"
    slow_case(run)


for one, its_settings in KINDS.items():
    add_case(one, its_settings)


@slow_case
def real_training_accumulation(context: Context) -> None:
    """Three micro batches a step."""
    check(context, KINDS["rslora"], grad_accum=3, seq_len=32)


@slow_case
def real_training_padding(context: Context) -> None:
    """Rows of unequal length."""
    blocks = text_blocks(context.model, corpus(context.root), LENGTH)
    lengths = [LENGTH - 7 * (i % 8) for i in range(len(blocks))]
    with (context.folder / "rows.jsonl").open("w") as file:
        for block, length in zip(blocks.tolist(), lengths, strict=True):
            file.write(json.dumps({"input_ids": block[:length]}) + "\n")
    padding = AutoTokenizer.from_pretrained(context.model).pad_token_id or 0

    def batch_of(rows: list[int]) -> dict[str, torch.Tensor]:
        width = max(lengths[row] for row in rows)
        ids = torch.full((len(rows), width), padding)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : lengths[row]] = blocks[row, : lengths[row]]
            mask[i, : lengths[row]] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    compare_runs(
        context, context.model, fresh_adapter(context, target_modules=["q_proj", "v_proj"]), "rows.jsonl", len(blocks),
        batch_of, {"input_ids": blocks[:2].contiguous()}, open_model, steps=STEPS, batch=2, seq_len=LENGTH, lr=1e-3,
    )  # fmt: skip


def peft_losses(directory: pathlib.Path, adapter: pathlib.Path, blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Losses of PEFT's training of `adapter` on a base of this dtype, a block a step."""
    base = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True, autocast_adapter_dtype=True)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3, weight_decay=0)
    losses = []
    for step in range(STEPS):
        block = blocks[step % len(blocks)][None]
        loss = model(input_ids=block, labels=block).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return torch.tensor(losses)


@slow_case
def real_training_bf16(context: Context) -> None:
    """The base in bf16, the adapter in f32: as near to training in f32 as PEFT's training in bf16 is.

    Two runs in bf16 round at other places and drift apart; what can be asked of ours is that it strays from the
    losses of f32 no further than PEFT's does. A run is one draw of such a distance, hence the factor.
    """
    fresh_adapter(context, target_modules=["q_proj", "v_proj"]).save_pretrained(context.folder / "initial")
    text = corpus(context.root)
    (context.folder / "corpus.txt").write_text(text, encoding="utf-8")
    context.run(
        "train", "--base", context.model, "--adapter", "initial", "--data", "corpus.txt", "--no-shuffle",
        "--compute", "bf16", "--steps", STEPS, "--batch-size", 1, "--seq-len", LENGTH, "--lr", 1e-3,
        "--schedule", "constant", "--warmup", 0, "--run-dir", "run",
    )  # fmt: skip
    blocks = text_blocks(context.model, text, LENGTH)
    lines = map(json.loads, (context.folder / "run/metrics.jsonl").read_text().splitlines())
    ours = torch.tensor([line["loss"] for line in lines if line["type"] == "step"])
    exact, theirs = (peft_losses(context.model, context.folder / "initial", blocks, dtype) for dtype in (torch.float32, torch.bfloat16))

    def distance(losses: torch.Tensor) -> float:
        return (losses - exact).square().mean().sqrt().item()

    context.note(f"root mean square of {STEPS} losses minus those of f32: {distance(ours):.1e}, PEFT's bf16 {distance(theirs):.1e}")
    assert_small("losses", distance(ours), BF16_DISTANCE * distance(theirs))

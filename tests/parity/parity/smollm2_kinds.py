"""Thirty steps of PEFT's and of our training on a real model, for each kind of adapter."""

from __future__ import annotations

import json

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from parity.comparison import compare_runs, compare_training, open_model, text_blocks
from parity.harness import Context, assert_close, slow_case
from parity.networks import corpus
from parity.smollm2 import fresh_adapter

STEPS = 30
LENGTH = 64
BF16_LOSS_TOLERANCE = 5e-2  # sums of a bf16 product may round at other places
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


@slow_case
def real_training_bf16(context: Context) -> None:
    """The base in bf16, the adapter in f32."""
    model = AutoModelForCausalLM.from_pretrained(context.model, dtype=torch.bfloat16)
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    peft = get_peft_model(model, config)
    peft.save_pretrained(context.folder / "initial")
    text = corpus(context.root)
    (context.folder / "corpus.txt").write_text(text, encoding="utf-8")
    context.run(
        "train", "--base", context.model, "--adapter", "initial", "--data", "corpus.txt", "--no-shuffle",
        "--compute", "bf16", "--steps", STEPS, "--batch-size", 1, "--seq-len", LENGTH, "--lr", 1e-3,
        "--schedule", "constant", "--warmup", 0, "--run-dir", "run",
    )  # fmt: skip
    blocks = text_blocks(context.model, text, LENGTH)
    trainable = [p for p in peft.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3, weight_decay=0)
    theirs = []
    for step in range(STEPS):
        block = blocks[step % len(blocks)][None]
        loss = peft(input_ids=block, labels=block).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        theirs.append(loss.item())
    lines = map(json.loads, (context.folder / "run/metrics.jsonl").read_text().splitlines())
    ours = [line["loss"] for line in lines if line["type"] == "step"]
    worst = assert_close("losses", torch.tensor(ours), torch.tensor(theirs), BF16_LOSS_TOLERANCE)
    context.note(f"{STEPS} losses differ by {worst:.1e}")

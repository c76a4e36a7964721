"""A real model: SmolLM2-135M-Instruct (dequantised from Q4_1)."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model

from parity.comparison import (
    LOGITS_TOLERANCE,
    compare_greedy,
    compare_training,
    lora_logits,
    open_model,
    peft_logits,
    text_blocks,
)
from parity.harness import Context, assert_close, case
from parity.networks import corpus

PROMPTS = [
    "The capital of France is",
    "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n",
    "def fibonacci(n):\n    ",
]


def fresh_adapter(context: Context, **settings: object) -> torch.nn.Module:
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, **settings)
    return get_peft_model(open_model(context.model), config)


@case
def smollm2_logits(context: Context) -> None:
    """PEFT's fresh adapter changes nothing, so these are the base's logits, on real text."""
    model = fresh_adapter(context)
    model.save_pretrained(context.folder / "adapter")
    inputs = {"input_ids": text_blocks(context.model, corpus(context.root), 200)[:2].contiguous()}
    worst = assert_close(
        "logits", lora_logits(context, "adapter", context.model, inputs),
        peft_logits(model, inputs), LOGITS_TOLERANCE,
    )  # fmt: skip
    context.note(f"logits differ by {worst:.1e}")


@case
def smollm2_greedy_tokens(context: Context) -> None:
    model = fresh_adapter(context)
    model.save_pretrained(context.folder / "adapter")
    compare_greedy(context, context.model, model, "adapter", PROMPTS, 48)


@case
def smollm2_training_default_targets(context: Context) -> None:
    compare_training(
        context, context.model, fresh_adapter(context), corpus(context.root), batch=2, seq_len=128, lr=1e-3
    )


@case
def smollm2_training_all_linear_cosine(context: Context) -> None:
    model = fresh_adapter(context, target_modules="all-linear")
    compare_training(
        context, context.model, model, corpus(context.root), batch=2, seq_len=128, lr=5e-4, schedule="cosine"
    )

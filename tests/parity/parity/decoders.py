"""Tiny random Llamas in the variants that real ones come in."""

from __future__ import annotations

import pathlib

import torch
from peft import LoraConfig, get_peft_model

from parity.comparison import (
    LOGITS_TOLERANCE,
    compare_greedy,
    compare_training,
    lora_logits,
    open_model,
    peft_logits,
)
from parity.harness import Context, assert_close, case
from parity.networks import corpus, make_llama

VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "one_key_head": {"num_key_value_heads": 1},
    "wide_heads": {"head_dim": 32},
    "rope_linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    "rope_llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
}


def peft_model(base: pathlib.Path, **settings: object) -> torch.nn.Module:
    defaults: dict[str, object] = {"task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16}
    return get_peft_model(open_model(base), LoraConfig(**{**defaults, **settings}))


def check_logits(context: Context, variant: str) -> None:
    base = make_llama(context.root, context.folder / "base", **VARIANTS[variant])
    model = peft_model(base, init_lora_weights=False, target_modules="all-linear")
    model.save_pretrained(context.folder / "adapter")
    ids = torch.randint(0, 512, (3, 100))
    worst = assert_close(
        "logits", lora_logits(context, "adapter", base, {"input_ids": ids}),
        peft_logits(model, {"input_ids": ids}), LOGITS_TOLERANCE,
    )  # fmt: skip
    context.note(f"logits differ by {worst:.1e}")


def register_logits(variant: str) -> None:
    def check(context: Context) -> None:
        check_logits(context, variant)

    check.__name__ = f"llama_logits_{variant}"
    case(check)


for _variant in VARIANTS:
    register_logits(_variant)


@case
def llama_logits_padding(context: Context) -> None:
    """Padded rows, on either side: the positions that are not padding agree."""
    base = make_llama(context.root, context.folder / "base")
    model = peft_model(base, init_lora_weights=False)
    model.save_pretrained(context.folder / "adapter")
    ids = torch.randint(0, 512, (4, 24))
    mask = torch.ones_like(ids)
    mask[0, 15:] = 0
    mask[1, :7] = 0
    mask[2, 1:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    kept = mask.bool()
    worst = assert_close(
        "logits", lora_logits(context, "adapter", base, inputs)[kept],
        peft_logits(model, inputs)[kept], LOGITS_TOLERANCE,
    )  # fmt: skip
    context.note(f"logits differ by {worst:.1e}")


@case
def llama_config_of_transformers_4(context: Context) -> None:
    """The older spelling of config.json: rope_theta, rope_scaling and torch_dtype at top level."""
    import json

    base = make_llama(context.root, context.folder / "base", **VARIANTS["rope_llama3"])
    model = peft_model(base, init_lora_weights=False)
    model.save_pretrained(context.folder / "adapter")
    config = json.loads((base / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    (base / "config.json").write_text(json.dumps(config))
    ids = torch.randint(0, 512, (2, 100))
    assert_close(
        "logits", lora_logits(context, "adapter", base, {"input_ids": ids}),
        peft_logits(model, {"input_ids": ids}), LOGITS_TOLERANCE,
    )  # fmt: skip


@case
def llama_greedy_tokens(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base", initializer_range=0.3)
    model = peft_model(base, init_lora_weights=False)
    model.save_pretrained(context.folder / "adapter")
    compare_greedy(context, base, model, "adapter", ["The licence", "Grant of", " def f(x):\n"], 40)


@case
def llama_training_default_targets(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base")
    compare_training(context, base, peft_model(base), corpus(context.root), lr=5e-3)


@case
def llama_training_all_linear_cosine(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base", tie_word_embeddings=True)
    model = peft_model(base, target_modules="all-linear", use_rslora=True)
    compare_training(context, base, model, corpus(context.root), lr=5e-3, schedule="cosine")


@case
def llama_training_accumulated(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base")
    model = peft_model(base, target_modules=["q_proj", "down_proj"], rank_pattern={"down_proj": 4})
    compare_training(context, base, model, corpus(context.root), batch=2, grad_accum=3, lr=5e-3)


@case
def llama_training_biases_and_saved_module(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base", attention_bias=True, mlp_bias=True)
    model = peft_model(base, bias="all", modules_to_save=["lm_head"])
    compare_training(context, base, model, corpus(context.root), lr=2e-3)

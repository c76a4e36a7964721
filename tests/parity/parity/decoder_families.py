"""Decoders of the Llama kind: one tiny random model of each family, with its switches on."""

from __future__ import annotations

import pathlib

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from parity.comparison import (
    LOGITS_TOLERANCE,
    compare_greedy,
    compare_training,
    lora_logits,
    open_model,
    peft_logits,
)
from parity.harness import Context, assert_close, case
from parity.networks import corpus, make_tokenizer

VOCABULARY = 320
SMALL: dict[str, object] = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=0, pad_token_id=3,
    initializer_range=0.1,
)  # fmt: skip
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=48)
FACTORS = dict(short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], long_factor=[1.0, 1.5, 2.0, 2.5, 3.0, 3.5])

# Configuration class, what differs from SMALL, target modules.
FAMILIES: dict[str, tuple[str, dict[str, object], object]] = {
    "mistral": ("Mistral", dict(sliding_window=16), "all-linear"),
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True), "all-linear"),
    "qwen2_window": ("Qwen2", dict(use_sliding_window=True, sliding_window=16, max_window_layers=1), "all-linear"),
    "qwen3": ("Qwen3", dict(head_dim=32), "all-linear"),
    "gemma": ("Gemma", dict(head_dim=32), "all-linear"),
    "gemma2": (
        "Gemma2",
        dict(head_dim=32, sliding_window=16, query_pre_attn_scalar=24, final_logit_softcapping=3.0,
             attn_logit_softcapping=2.0),
        "all-linear",
    ),
    "gemma3": (
        "Gemma3Text",
        dict(head_dim=32, sliding_window=16, query_pre_attn_scalar=24,
             layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
        "all-linear",
    ),
    "phi3": ("Phi3", dict(), ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    "phi3_long": (
        "Phi3",
        dict(original_max_position_embeddings=32, sliding_window=40,
             rope_parameters=dict(rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.75, **FACTORS)),
        ["qkv_proj", "down_proj"],
    ),
    "granite": (
        "Granite",
        dict(embedding_multiplier=6.0, logits_scaling=1.5, residual_multiplier=0.6, attention_multiplier=0.1),
        "all-linear",
    ),
    "olmo2": ("Olmo2", dict(), "all-linear"),
    "mixtral": ("Mixtral", dict(num_local_experts=4), ATTENTION),
    "qwen2_moe": (
        "Qwen2Moe", dict(**EXPERTS, shared_expert_intermediate_size=80, mlp_only_layers=[1]), ATTENTION + ["down_proj"],
    ),
    "qwen3_moe": ("Qwen3Moe", dict(**EXPERTS, norm_topk_prob=True, head_dim=32), ATTENTION),
}  # fmt: skip


def make_base(context: Context, family: str, **changes: object) -> pathlib.Path:
    name, settings, _ = FAMILIES[family]
    torch.manual_seed(11)
    config = getattr(transformers, name + "Config")(**{**SMALL, **settings, **changes})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # norms start as ones or zeros and biases as zeros, which would hide mistakes
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name or parameter_name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    base = context.folder / "base"
    model.save_pretrained(base)
    make_tokenizer(corpus(context.root), VOCABULARY).save_pretrained(base)
    return base


def adapted(base: pathlib.Path, family: str) -> torch.nn.Module:
    settings = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=FAMILIES[family][2])
    return get_peft_model(open_model(base), settings)


def randomise(model: torch.nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.05


def check_logits(context: Context, family: str) -> None:
    base = make_base(context, family)
    model = adapted(base, family)
    randomise(model)
    model.save_pretrained(context.folder / "adapter")
    ids = torch.randint(4, VOCABULARY, (3, 50))
    mask = torch.ones_like(ids)
    mask[1, 37:] = 0
    mask[2, :9] = 0
    worst = 0.0
    for inputs in (
        {"input_ids": ids},
        {"input_ids": ids[:, :24].contiguous()},
        {"input_ids": ids.masked_fill(mask == 0, 3), "attention_mask": mask},
    ):
        shown = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
        ours = lora_logits(context, "adapter", base, inputs)[shown]
        worst = max(worst, assert_close("logits", ours, peft_logits(model, inputs)[shown], LOGITS_TOLERANCE))
    context.note(f"logits differ by {worst:.1e}")
    context.run("verify", "adapter", "--base", base)


def check_training(context: Context, family: str) -> None:
    base = make_base(context, family)
    compare_training(
        context, base, adapted(base, family), corpus(context.root), steps=12, batch=3, seq_len=48, lr=2e-3
    )


def register(name: str, check: object, family: str) -> None:
    def run(context: Context) -> None:
        check(context, family)  # type: ignore[operator]

    run.__name__ = name
    case(run)


for _family in FAMILIES:
    register(f"decoder_logits_{_family}", check_logits, _family)
    register(f"decoder_training_{_family}", check_training, _family)


@case
def decoder_greedy_tokens_gemma2(context: Context) -> None:
    """Generation beyond the window of sliding layers."""
    base = make_base(context, "gemma2", initializer_range=0.3)
    model = adapted(base, "gemma2")
    randomise(model)
    model.save_pretrained(context.folder / "adapter")
    compare_greedy(context, base, model, "adapter", ["The licence", " def f(x):\n"], 40)

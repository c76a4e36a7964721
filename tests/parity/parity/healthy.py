"""No error and no warning on any healthy adapter: many configurations, saved by the real PEFT, verified on their base."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
)

from parity.harness import Context, case

DECODER = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64)
BERT = dict(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=64, num_labels=3)

DISTILBERT = dict(vocab_size=64, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64)
NEOX = dict(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=64)


def llama(**settings: object) -> torch.nn.Module:
    return LlamaForCausalLM(LlamaConfig(**DECODER, **settings))


def gpt2() -> torch.nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=3, n_head=4))


BASES = {
    "llama": llama,
    "llama_tied": lambda: llama(tie_word_embeddings=True),
    "llama_bias": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama_cls": lambda: LlamaForSequenceClassification(LlamaConfig(**DECODER, num_labels=3, pad_token_id=0)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**DECODER)),
    "gpt2": gpt2,
    "bert_cls": lambda: BertForSequenceClassification(BertConfig(**BERT)),
    "bert_tokens": lambda: BertForTokenClassification(BertConfig(**BERT)),
    "roberta_cls": lambda: RobertaForSequenceClassification(RobertaConfig(**BERT)),
    "roberta_tokens": lambda: RobertaForTokenClassification(RobertaConfig(**BERT)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**BERT)),
    "distilbert_cls": lambda: DistilBertForSequenceClassification(DistilBertConfig(**DISTILBERT)),
    "distilbert": lambda: DistilBertForMaskedLM(DistilBertConfig(**DISTILBERT)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX)),
    "gpt_neox_tied": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**NEOX, tie_word_embeddings=True)),
}

CAUSAL = dict(task_type="CAUSAL_LM")
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# name: (base, settings of LoraConfig)
CONFIGURATIONS: dict[str, tuple[str, dict[str, object]]] = {
    "llama_default": ("llama", CAUSAL),
    "llama_all_names": ("llama", {**CAUSAL, "target_modules": ALL}),
    "llama_all_linear": ("llama", {**CAUSAL, "target_modules": "all-linear"}),
    "llama_regex": ("llama", {**CAUSAL, "target_modules": r".*\.self_attn\.(q|k)_proj"}),
    "llama_regex_layers": ("llama", {**CAUSAL, "target_modules": r".*layers\.[12]\.mlp\.(up|down)_proj"}),
    "llama_full_paths": ("llama", {**CAUSAL, "target_modules": ["model.layers.1.self_attn.q_proj", "v_proj"]}),
    "llama_layers": ("llama", {**CAUSAL, "target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0, 2]}),
    "llama_one_layer": ("llama", {**CAUSAL, "target_modules": ["q_proj"], "layers_to_transform": 3}),
    "llama_layers_pattern": (
        "llama", {**CAUSAL, "target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}),
    "llama_exclude": ("llama", {**CAUSAL, "target_modules": ALL, "exclude_modules": ["model.layers.0.mlp.up_proj"]}),
    "llama_exclude_regex": ("llama", {**CAUSAL, "target_modules": ALL, "exclude_modules": r".*layers\.3\..*"}),
    "llama_rank_pattern": (
        "llama", {**CAUSAL, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 4, "^model.layers.0.self_attn.q_proj": 2}}),
    "llama_alpha_pattern": ("llama", {**CAUSAL, "target_modules": ["q_proj", "v_proj"], "alpha_pattern": {"v_proj": 32}}),
    "llama_both_patterns": (
        "llama", {**CAUSAL, "target_modules": ["q_proj", "v_proj"], "use_rslora": True,
                  "rank_pattern": {r"layers\.[01]\..*q_proj": 16}, "alpha_pattern": {r"layers\.[01]\..*q_proj": 4}}),
    "llama_rslora": ("llama", {**CAUSAL, "use_rslora": True, "r": 4, "lora_alpha": 16}),
    "llama_rank_1": ("llama", {**CAUSAL, "r": 1}),
    "llama_dropout": ("llama", {**CAUSAL, "lora_dropout": 0.1}),
    "llama_dora": ("llama", {**CAUSAL, "use_dora": True}),
    "llama_dora_all": ("llama", {**CAUSAL, "use_dora": True, "target_modules": ALL, "use_rslora": True}),
    "llama_gaussian": ("llama", {**CAUSAL, "init_lora_weights": "gaussian"}),
    "llama_orthogonal": ("llama", {**CAUSAL, "init_lora_weights": "orthogonal"}),
    "llama_saved_head": ("llama", {**CAUSAL, "modules_to_save": ["lm_head"]}),
    "llama_saved_both": ("llama", {**CAUSAL, "modules_to_save": ["embed_tokens", "lm_head"]}),
    "llama_saved_norm": ("llama", {**CAUSAL, "modules_to_save": ["model.norm"]}),
    "llama_embedding": ("llama", {**CAUSAL, "target_modules": ["embed_tokens", "q_proj"]}),
    "llama_head": ("llama", {**CAUSAL, "target_modules": ["lm_head", "q_proj"]}),
    "llama_tokens": ("llama", {**CAUSAL, "trainable_token_indices": [1, 5, 63]}),
    "llama_tokens_named": ("llama", {**CAUSAL, "trainable_token_indices": {"embed_tokens": [2, 3]}}),
    "llama_no_task": ("llama", {"target_modules": ["q_proj"]}),
    "llama_tied": ("llama_tied", CAUSAL),
    "llama_tied_tokens": ("llama_tied", {**CAUSAL, "trainable_token_indices": [7]}),
    "llama_tied_together": (
        "llama_tied", {**CAUSAL, "target_modules": ["embed_tokens", "lm_head", "q_proj"], "ensure_weight_tying": True}),
    "llama_tied_saved": ("llama_tied", {**CAUSAL, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    "llama_bias_all": ("llama_bias", {**CAUSAL, "bias": "all"}),
    "llama_bias_lora_only": ("llama_bias", {**CAUSAL, "bias": "lora_only", "target_modules": ["q_proj", "up_proj"]}),
    "llama_bias_none_there": ("llama", {**CAUSAL, "bias": "lora_only"}),
    "llama_lora_bias": ("llama_bias", {**CAUSAL, "lora_bias": True}),
    "llama_classifier": ("llama_cls", {"task_type": "SEQ_CLS"}),
    "llama_feature": ("llama", {"task_type": "FEATURE_EXTRACTION", "target_modules": ["q_proj"]}),
    "mistral_default": ("mistral", CAUSAL),
    "mistral_all_linear": ("mistral", {**CAUSAL, "target_modules": "all-linear", "use_dora": True}),
    "mistral_patterns": (
        "mistral", {**CAUSAL, "target_modules": ["k_proj", "o_proj"], "rank_pattern": {"o_proj": 2}, "bias": "all"}),
    "gpt2_default": ("gpt2", CAUSAL),
    "gpt2_flag": ("gpt2", {**CAUSAL, "fan_in_fan_out": True, "target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "gpt2_all_linear": ("gpt2", {**CAUSAL, "target_modules": "all-linear"}),
    "gpt2_dora": ("gpt2", {**CAUSAL, "use_dora": True, "fan_in_fan_out": True}),
    "gpt2_bias_all": ("gpt2", {**CAUSAL, "bias": "all"}),
    "gpt2_bias_lora_only": ("gpt2", {**CAUSAL, "bias": "lora_only"}),
    "gpt2_layers": ("gpt2", {**CAUSAL, "layers_to_transform": [1, 2]}),
    "gpt2_tokens": ("gpt2", {**CAUSAL, "trainable_token_indices": [3, 9]}),
    "bert_classifier": ("bert_cls", {"task_type": "SEQ_CLS"}),
    "bert_all_linear": ("bert_cls", {"task_type": "SEQ_CLS", "target_modules": "all-linear"}),
    "bert_bias_all": ("bert_cls", {"task_type": "SEQ_CLS", "bias": "all"}),
    "bert_bias_lora_only": ("bert_cls", {"task_type": "SEQ_CLS", "bias": "lora_only", "target_modules": ["query", "dense"]}),
    "bert_saved_pooler": ("bert_cls", {"task_type": "SEQ_CLS", "modules_to_save": ["pooler"]}),
    "bert_tokens": ("bert_tokens", {"task_type": "TOKEN_CLS"}),
    "roberta_classifier": ("roberta_cls", {"task_type": "SEQ_CLS"}),
    "roberta_bias_all": ("roberta_cls", {"task_type": "SEQ_CLS", "bias": "all", "use_dora": True}),
    "roberta_tokens": ("roberta_tokens", {"task_type": "TOKEN_CLS", "target_modules": ["key", "output.dense"]}),
    "roberta_language_bias": ("roberta", {"target_modules": ["query"], "bias": "all"}),
    "distilbert_all_linear": ("distilbert", {"target_modules": "all-linear"}),
    "gpt_neox_default": ("gpt_neox", CAUSAL),
    "gpt_neox_all_linear": ("gpt_neox", {**CAUSAL, "target_modules": "all-linear", "bias": "all"}),
    "gpt_neox_saved_head": ("gpt_neox", {**CAUSAL, "modules_to_save": ["lm_head"]}),
    "bert_dora": ("bert_tokens", {"task_type": "TOKEN_CLS", "use_dora": True}),
}

# Not plain healthy: PEFT writes them so, and what they are warned of is true. The rules and no others must fire.
WARNED: dict[str, tuple[str, dict[str, object], set[str]]] = {
    "pickle": ("llama", CAUSAL, {"LV102"}),
    "pissa": ("llama", {**CAUSAL, "init_lora_weights": "pissa"}, {"LV212"}),
    "saved_norms": ("llama", {**CAUSAL, "modules_to_save": ["norm"]}, {"LV209"}),
    "tied_head": ("llama_tied", {**CAUSAL, "target_modules": ["lm_head"]}, {"LV315"}),
    "roberta_language": (
        "roberta", {"target_modules": ["query", "word_embeddings", "lm_head.dense"]}, {"LV315"},
    ),
    "distilbert_classifier": (
        "distilbert_cls", {"task_type": "SEQ_CLS", "target_modules": ["q_lin", "lin1"]}, {"LV209"},
    ),
    "gpt_neox_tied_embedding": (
        "gpt_neox_tied", {**CAUSAL, "target_modules": ["embed_in", "dense"]}, {"LV315"},
    ),
    "alpha_overlap": (
        "llama", {**CAUSAL, "alpha_pattern": {"layers.0.self_attn.q_proj": 4, "q_proj": 2}}, {"LV208"}),
}


def train(model: torch.nn.Module) -> None:
    """Every trainable parameter gets values of its own, as training would leave them."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.01)


def write(folder: pathlib.Path, name: str, base: str, settings: dict[str, object], **save: object) -> tuple[str, str]:
    torch.manual_seed(0)
    model = BASES[base]()
    base_folder = folder / f"base_{base}"
    if not base_folder.exists():
        model.save_pretrained(base_folder)
    model = get_peft_model(model, LoraConfig(**{"r": 8, "lora_alpha": 16, **settings}))
    train(model)
    model.save_pretrained(folder / name, **save)
    return str(folder / name), str(base_folder)


def findings(context: Context, *arguments: str) -> tuple[int, list[dict]]:
    done = subprocess.run([str(context.lora), "verify", *arguments, "--json"], capture_output=True, text=True, timeout=300)
    return done.returncode, json.loads(done.stdout)["findings"]


def complaints(found: list[dict]) -> list[str]:
    return [f"{f['rule']} {f['severity']}: {f['message']}" for f in found if f["severity"] != "note"]


@case
def healthy_adapters_of_peft(context: Context) -> None:
    assert len(CONFIGURATIONS) >= 40
    wrong = []
    for name, (base, settings) in CONFIGURATIONS.items():
        adapter, base_folder = write(context.folder, name, base, settings)
        for arguments in ([adapter, "--base", base_folder], [adapter]):
            code, found = findings(context, *arguments)
            if code != 0 or complaints(found):
                wrong.append(f"{' '.join(arguments)}: exit {code}, {complaints(found)}")
    if wrong:
        raise AssertionError(f"{len(wrong)} of {2 * len(CONFIGURATIONS)} runs\n" + "\n".join(wrong))
    context.note(f"{len(CONFIGURATIONS)} adapters, with and without their base")


@case
def healthy_adapters_that_deserve_a_warning(context: Context) -> None:
    for name, (base, settings, rules) in WARNED.items():
        adapter, base_folder = write(context.folder, name, base, settings, safe_serialization=name != "pickle")
        code, found = findings(context, adapter, "--base", base_folder)
        if code != 0 or {f["rule"] for f in found if f["severity"] != "note"} != rules:
            raise AssertionError(f"{name}: exit {code}, {complaints(found)}, expected {sorted(rules)}")


if __name__ == "__main__":  # python -m parity.healthy DIR: the matrix to look at
    for matrix_name, (matrix_base, matrix_settings) in CONFIGURATIONS.items():
        write(pathlib.Path(sys.argv[1]), matrix_name, matrix_base, matrix_settings)

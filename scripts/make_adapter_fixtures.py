#!/usr/bin/env python3
"""Writes tests/golden/adapter with the real PEFT (0.21.2): configurations, target resolution, adapters.

Usage: make_adapter_fixtures.py OUTPUT_DIRECTORY

configs/NAME.json  adapter_config.json of save_pretrained, with the two set-valued arrays sorted
                   (their order follows Python's hash seed); nothing else is touched.
models.json        the modules of small models, in the order of named_modules().
targets.json       which modules each configuration adapted and saved, with rank and alpha.
                   Sites on bare parameters are listed with the parameter each belongs to.
patterns.json      re.match / re.fullmatch verdicts for the regular expressions PEFT builds.
adapters/NAME/     directories written by save_pretrained.
"""

import copy
import json
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

SET_VALUED = ("target_modules", "exclude_modules")


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 20)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(20, 2)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


class TopLevelLayers(nn.Module):
    """Layers without a leading component, names that contain each other, a nested index."""

    def __init__(self):
        super().__init__()
        self.h = nn.ModuleList(
            nn.ModuleDict({"q_proj": nn.Linear(4, 4), "weight": nn.Linear(4, 4)}) for _ in range(3)
        )
        self.body = nn.ModuleDict(
            {
                "experts": nn.ModuleList(
                    nn.ModuleDict({"parts": nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])})
                    for _ in range(2)
                )
            }
        )
        self.head = nn.Linear(4, 2)
        self.lm_head = nn.Linear(4, 2)


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(3, 10, 4))
        self.gate_up_proj_bias = nn.Parameter(torch.randn(10))
        self.down_proj = nn.Parameter(torch.randn(3, 4, 5))
        self.router = nn.Linear(4, 3)


class ManyKinds(nn.Module):
    """Convolutions, attention, bare parameters on two levels."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4, 4))
        self.conv = nn.Sequential(nn.Conv1d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv3d(2, 4, 1))
        self.attn = nn.MultiheadAttention(4, 2)
        self.blocks = nn.ModuleList(nn.ModuleDict({"experts": Experts(), "proj": nn.Linear(4, 4)}) for _ in range(2))
        self.embed = nn.Embedding(6, 4)


def llama(layers=2, cls=transformers.LlamaForCausalLM, **extra):
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        **extra,
    )
    return cls(config)


def gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=32, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    )


MODELS = {
    "mlp": MLP,
    "top": TopLevelLayers,
    "llama": llama,
    "llama12": lambda: llama(12),
    "llama_cls": lambda: llama(cls=transformers.LlamaForSequenceClassification, num_labels=3),
    "gpt2": gpt2,
    "bert": lambda: transformers.BertModel(
        transformers.BertConfig(vocab_size=24, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                                intermediate_size=12, max_position_embeddings=16)),
    "kinds": ManyKinds,
}


def kind_of(module):
    if isinstance(module, Conv1D):
        return "conv1d"
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return "convolution"
    if isinstance(module, nn.MultiheadAttention):
        return "attention"
    if "Norm" in type(module).__name__:
        return "norm"
    return "other"


def modules_of(model):
    is_transformers = isinstance(model, transformers.PreTrainedModel)
    head = model.get_output_embeddings() if is_transformers else None
    return {
        "is_transformers": is_transformers,
        "model_type": model.config.model_type if is_transformers else None,
        "modules": [
            {
                "path": name,
                "class": type(module).__name__,
                "kind": kind_of(module),
                "is_output_head": head is not None and module is head,
                "parameters": {n: list(p.shape) for n, p in module.named_parameters(recurse=False)},
            }
            for name, module in model.named_modules()
        ],
    }


TARGET_CASES = [
    ("mlp", dict(target_modules=["fc1", "fc2"])),
    ("mlp", dict(target_modules=["fc1"], modules_to_save=["fc2"])),
    ("mlp", dict(target_modules="all-linear")),
    ("mlp", dict(target_modules="ALL-Linear")),
    ("mlp", dict(target_modules="fc.")),
    ("mlp", dict(target_modules="fc")),
    ("mlp", dict(target_modules=["c1"])),
    ("mlp", dict(target_modules=["fc1", "nothing"], rank_pattern={"fc2": 3, "fc1": 2})),
    ("mlp", dict(target_modules=["relu"])),
    ("mlp", dict(target_modules=["fc1"], exclude_modules=["fc1"])),
    ("mlp", dict()),
    ("llama", dict()),
    ("llama", dict(target_modules=["q_proj", "v_proj"])),
    ("llama", dict(target_modules=["self_attn.q_proj"])),
    ("llama", dict(target_modules=["proj"])),
    ("llama", dict(target_modules="q_proj")),
    ("llama", dict(target_modules=r".*\.(q|v)_proj")),
    ("llama", dict(target_modules=r"model\.layers\.[1-9]\d*\.mlp\.\w+_proj")),
    ("llama", dict(target_modules=r".*_proj(?<!down_proj)")),
    ("llama", dict(target_modules="all-linear")),
    ("llama12", dict(target_modules="all-linear")),
    ("llama12", dict(target_modules="all-linear", exclude_modules=["down_proj"])),
    ("llama12", dict(target_modules="all-linear", exclude_modules=r".*\.0\..*")),
    ("llama", dict(target_modules=["embed_tokens", "lm_head"])),
    ("llama", dict(target_modules=["q_proj", "lm_head"], modules_to_save=["head"])),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=1)),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=[0])),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=[])),
    ("llama", dict(target_modules=["q_proj"], layers_to_transform=[7])),
    ("llama12", dict(target_modules=["q_proj"], layers_to_transform=[1, 10], layers_pattern="layers")),
    ("llama12", dict(target_modules=["q_proj"], layers_to_transform=[1, 10], layers_pattern=["h", "layers"])),
    ("llama12", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="")),
    ("llama12", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="blocks")),
    ("llama", dict(target_modules=["model.layers.0.self_attn.q_proj", "v_proj"], layers_to_transform=[1])),
    ("llama12",
     dict(target_modules=[f"model.layers.{i}.self_attn.{p}_proj" for i in range(11) for p in "qv"],
          layers_to_transform=[2])),
    ("llama12", dict(target_modules=[f"model.layers.{i}.self_attn.{p}_proj" for i in range(12) for p in "qv"])),
    ("llama12",
     dict(target_modules=[f"model.layers.{i}.self_attn.{p}_proj" for i in range(12) for p in "qv"],
          layers_to_transform=[2])),
    ("llama", dict(target_modules=["q_proj", "o_proj"], exclude_modules=["layers.0.self_attn.q_proj"])),
    ("llama", dict(target_modules=["q_proj"], exclude_modules=r"model\.layers\.0\..*")),
    ("llama", dict(target_modules=["q_proj"], exclude_modules=r"model\.layers\.0")),
    ("llama", dict(target_modules=["q_proj", "gate_proj"], modules_to_save=["mlp"])),
    ("llama", dict(target_modules=["q_proj"], modules_to_save=["lm_head", "typo"])),
    ("llama", dict(target_modules=["q_proj", "v_proj"], modules_to_save=["self.attn"])),
    ("llama", dict(target_modules=["q_proj", "v_proj", "o_proj"], r=4, lora_alpha=8,
                   rank_pattern={"q_proj": 2, r"layers\.1\..*": 6},
                   alpha_pattern={"^model.layers.0.self_attn.o_proj": 3, "^v_proj": 5, "attn.v_proj": 1.5})),
    ("llama", dict(target_modules=["q_proj", "v_proj"], rank_pattern={"q|v_proj": 2, "zzz": 3})),
    ("llama", dict(target_modules=["mlp"])),
    ("llama", dict(target_modules=[])),
    ("llama_cls", dict(target_modules="all-linear", task_type="SEQ_CLS")),
    ("llama_cls", dict(target_modules="all-linear")),
    ("llama_cls", dict(target_modules=["q_proj"], task_type="TOKEN_CLS")),
    ("llama_cls", dict(target_modules=["q_proj"], task_type="SEQ_CLS", modules_to_save=["norm"])),
    ("gpt2", dict()),
    ("gpt2", dict(target_modules="all-linear")),
    ("gpt2", dict(target_modules=["c_attn", "mlp.c_proj"], layers_to_transform=[1])),
    ("gpt2", dict(target_modules=["c_proj"], layers_to_transform=[1], layers_pattern="h")),
    ("gpt2", dict(target_modules=["wte"])),
    ("top", dict(target_modules=["q_proj"], layers_to_transform=[1])),
    ("top", dict(target_modules=["q_proj"], layers_to_transform=[1], layers_pattern="h")),
    ("top", dict(target_modules=["parts.0", "q_proj"])),
    ("top", dict(target_modules=["0"])),
    ("top", dict(target_modules=["weight"], modules_to_save=["head"])),
    ("top", dict(target_modules=["parts.1"], layers_to_transform=[1])),
    ("top", dict(target_modules=["parts.1"], layers_to_transform=[1], layers_pattern="experts")),
    ("top", dict(target_modules="all-linear", modules_to_save=["body"])),
    ("bert", dict()),
    ("bert", dict(target_modules=["query"], layer_replication=[[0, 2], [0, 1]], layers_to_transform=[2])),
    ("llama", dict(target_modules=["q_proj"], layer_replication=[[0, 2], [1, 2]])),
    ("llama", dict(target_modules="all-linear", layer_replication=[[1, 2], [0, 1]])),
    ("llama", dict(target_modules=["layers.3.self_attn.q_proj"], layer_replication=[[0, 2], [0, 2]])),
    ("llama", dict(target_modules=["q_proj"], layer_replication=[[0, 3]])),
    ("gpt2", dict(target_modules=["c_attn"], layer_replication=[[0, 2]])),
    ("kinds", dict(target_modules=["conv.0", "conv.1", "conv.2", "embed"])),
    ("kinds", dict(target_modules=["conv"])),
    ("kinds", dict(target_modules=["attn"])),
    ("kinds", dict(target_modules="all-linear")),
    ("kinds", dict(target_modules=["attn", "proj"], exclude_modules=["blocks.0.proj"])),
    ("kinds", dict(target_parameters=["experts.gate_up_proj"])),
    ("kinds", dict(target_modules=[], target_parameters=["experts.down_proj", "experts.gate_up_proj"])),
    ("kinds", dict(target_modules=["proj"], target_parameters=["blocks.1.experts.down_proj", "nothing.here"])),
    ("kinds", dict(target_modules=[], target_parameters=["gate_up_proj", "proj.weight", "router.weight"])),
    ("kinds", dict(target_modules=["proj"], target_parameters=["proj.weight"])),
    ("kinds", dict(target_modules=[], target_parameters=["experts.gate_up_proj_bias"])),
    ("kinds", dict(target_modules=[], target_parameters=["proj.bias"])),
    ("kinds", dict(target_modules=[], target_parameters=["scale"])),
    ("kinds", dict(target_modules=[], target_parameters=["up_proj"])),
    ("kinds", dict(target_modules=["nothing"], target_parameters=["experts.down_proj"])),
    ("kinds", dict(target_modules=["nothing"], target_parameters=["nothing"])),
    ("kinds", dict(target_modules=[], r=4, target_parameters=["experts.down_proj", "experts.gate_up_proj"],
                   rank_pattern={"down_proj": 2}, alpha_pattern={"blocks.1.experts.gate_up_proj": 3})),
    ("kinds", dict(target_modules=["router"], target_parameters=["experts.down_proj"])),
]


def without_base_layers(name):
    return ".".join(part for part in name.split(".") if part != "base_layer")


def target_answer(model_name, arguments):
    model = MODELS[model_name]()
    case = {"model": model_name, "config": arguments}
    try:
        config = LoraConfig(**copy.deepcopy(arguments))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapted = get_peft_model(model, config)
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        case["error"] = type(error).__name__
        return case
    dead = set()
    for warning in caught:
        found = re.search(r"keys did not match any targeted module and were ignored: (\[.*\])", str(warning.message))
        if found:
            dead.update(eval(found.group(1)))  # a list printed by PEFT
    base = adapted.base_model.model
    sites = [(name, module) for name, module in base.named_modules() if isinstance(module, LoraLayer)]
    describe = lambda module: {"r": module.r["default"], "alpha": module.lora_alpha["default"],
                               "scaling": module.scaling["default"]}
    case["lora"] = [{"path": name, **describe(module)} for name, module in sites
                    if not isinstance(module, ParamWrapper)]
    case["parameters"] = [
        {"path": name, "parameter": without_base_layers(name) + "." + module.parameter_name, **describe(module)}
        for name, module in sites if isinstance(module, ParamWrapper)
    ]
    case["lora"] = [entry for entry in case["lora"] if ".modules_to_save." not in entry["path"]]
    for entry in case["lora"]:
        entry["path"] = entry["path"].replace(".original_module", "")
    case["saved"] = [n for n, m in base.named_modules() if isinstance(m, ModulesToSaveWrapper)]
    case["dead_patterns"] = sorted(dead)
    stored = adapted.peft_config["default"]
    case["stored_targets"] = (
        sorted(stored.target_modules) if isinstance(stored.target_modules, (list, set)) else stored.target_modules
    )
    case["stored_saved"] = stored.modules_to_save
    return case


PATTERN_KEYS = [
    "q_proj", "^q_proj", "^model.layers.0.q_proj", r"layers\.\d+\.q_proj", "q_proj|v_proj", "(q|v)_proj", ".*",
    "", r"\w+", r"layers\.1\.", "layers.1.q_proj", r"q\.proj", "[qv]_proj", "[^.]+", r"[[]q", "q_proj$",
    r"q_proj\Z", r"(?i:Q_PROJ)", r"(?P<n>q)_proj", r"(?:q|k)_proj", r"q_proj(?!x)", r"(?<=\.)q_proj", "q{1}_proj",
    "q{,2}_proj", r"q_p(r)oj", r"(.)\1?_proj", r"(.)\3?_proj", "(?i)q_proj", "q_proj**", "q{2}{3}", r"\h", r"\Qq\E", "*q", "(?|q|v)_proj", "(", "[q", r"\p{L}", "(?R)", r"\x71_proj", r"q\u005fproj", r"größe", r"gr..e", r"\bq_proj\b",
    r"[\w.]*", r"q_proj\v?", r"[\d]", "a]b", "a{b", r"q-proj", r"q_proj*+", r"(?>q)_proj", "[]q]_proj", "[q[]_proj",
]
PATTERN_NAMES = [
    "q_proj", "model.layers.0.q_proj", "model.layers.1.q_proj", "model.layers.11.q_proj", "xq_proj", "q.proj",
    "model.q_projx", "v_proj", "layers.1.v_proj", "größe", "m.größe", "m.größ", "a.b\nc", "q_proj\n", "aq_proj.a", "",
    "m.[q", "m.3", "m.a]b", "a{b", "q-proj", "Q_PROJ", "m.]_proj", "m.[_proj",
]


def verdicts(regex, match):
    """One truth value per name, or null when Python refuses the expression."""
    try:
        return [bool(match(regex, name)) for name in PATTERN_NAMES]
    except re.error:
        return None


def pattern_answers():
    answers = [
        {"pattern": key, "suffix": verdicts(rf"(.*\.)?({key})$", re.match), "whole": verdicts(key, re.fullmatch)}
        for key in PATTERN_KEYS
    ]
    return {"names": PATTERN_NAMES, "patterns": answers}


CONFIG_CASES = {
    "defaults": ("mlp", dict(target_modules=["fc1", "fc2"])),
    "task": ("llama", dict(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], r=4, lora_alpha=16)),
    "rslora": ("llama", dict(task_type="CAUSAL_LM", target_modules=["v_proj"], use_rslora=True, r=16, lora_alpha=32,
                             lora_dropout=0.05)),
    "dora": ("llama", dict(task_type="CAUSAL_LM", target_modules=["v_proj"], use_dora=True)),
    "patterns": ("llama", dict(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"],
                               rank_pattern={"v_proj": 2, "^model.layers.0.self_attn.q_proj": 3},
                               alpha_pattern={"v_proj": 2.5, "q_proj": 7})),
    "regex": ("llama", dict(task_type="CAUSAL_LM", target_modules=r"model\.layers\.\d+\.self_attn\.(q|k)_proj")),
    "all_linear": ("llama", dict(task_type="CAUSAL_LM", target_modules="all-linear")),
    "all_linear_condensed": ("llama12", dict(task_type="CAUSAL_LM", target_modules="all-linear")),
    "modules_to_save": ("llama", dict(task_type="CAUSAL_LM", target_modules=["q_proj"],
                                      modules_to_save=["lm_head", "embed_tokens"])),
    "empty_modules_to_save": ("llama", dict(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=[])),
    "bias_all": ("mlp", dict(target_modules=["fc1"], bias="all")),
    "bias_lora_only": ("mlp", dict(target_modules=["fc1"], bias="lora_only")),
    "exclude_list": ("llama", dict(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM",
                                   exclude_modules=["layers.1.self_attn.v_proj", "layers.0.self_attn.q_proj"])),
    "exclude_regex": ("llama", dict(target_modules=["q_proj"], task_type="CAUSAL_LM",
                                    exclude_modules=r".*\.layers\.0\..*")),
    "layers_int": ("llama", dict(target_modules=["q_proj"], task_type="CAUSAL_LM", layers_to_transform=1)),
    "layers_list": ("llama", dict(target_modules=["q_proj"], task_type="CAUSAL_LM", layers_to_transform=[1, 0],
                                  layers_pattern="layers")),
    "layers_pattern_list": ("llama", dict(target_modules=["q_proj"], task_type="CAUSAL_LM", layers_to_transform=[1],
                                          layers_pattern=["layers", "h"])),
    "trainable_tokens_list": ("llama", dict(target_modules=["q_proj"], task_type="CAUSAL_LM",
                                            trainable_token_indices=[3, 1])),
    "trainable_tokens_object": ("llama", dict(target_modules=["q_proj"], task_type="CAUSAL_LM",
                                              trainable_token_indices={"embed_tokens": [1, 2]})),
    "seq_cls": ("llama_cls", dict(target_modules=["q_proj"], task_type="SEQ_CLS")),
    "gaussian": ("mlp", dict(target_modules=["fc1"], init_lora_weights="gaussian")),
    "init_false": ("mlp", dict(target_modules=["fc1"], init_lora_weights=False)),
    "orthogonal": ("mlp", dict(target_modules=["fc1"], init_lora_weights="orthogonal")),
    "pissa": ("mlp", dict(target_modules=["fc1"], r=2, init_lora_weights="pissa_niter_4")),
    "olora": ("mlp", dict(target_modules=["fc1"], r=2, init_lora_weights="olora")),
    "float_alpha": ("mlp", dict(target_modules=["fc1"], lora_alpha=22.62741699796952)),
    "integral_float_alpha": ("mlp", dict(target_modules=["fc1"], lora_alpha=16.0, lora_dropout=0)),
    "small_dropout": ("mlp", dict(target_modules=["fc1"], lora_dropout=1e-5)),
    "lora_bias": ("mlp", dict(target_modules=["fc1"], lora_bias=True)),
    "fan_in_fan_out": ("gpt2", dict(task_type="CAUSAL_LM", fan_in_fan_out=True)),
    "revision": ("llama", dict(task_type="CAUSAL_LM", target_modules=["q_proj"], revision="main")),
    "auto_mapping": ("llama", dict(target_modules=["q_proj"])),
    "target_parameters": ("mlp", dict(target_modules=["fc1"], target_parameters=["fc2.weight"])),
}


class Foreign(nn.Module):
    def __init__(self):
        super().__init__()
        self.größe = nn.Linear(4, 4)
        self.出力 = nn.Linear(4, 4)
        setattr(self, "rocket🚀", nn.Linear(4, 4))


def normalised(text):
    document = json.loads(text)
    for field in SET_VALUED:
        if isinstance(document[field], list):
            document[field].sort()
    return json.dumps(document, indent=2, sort_keys=True)


def save(model, directory):
    model.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)


def write_configs(out):
    out.mkdir(parents=True, exist_ok=True)
    MODELS["foreign"] = Foreign
    cases = dict(CONFIG_CASES)
    cases["non_ascii"] = ("foreign", dict(target_modules=["größe", "出力", "rocket🚀"], rank_pattern={"größe": 2}))
    for name, (model_name, arguments) in cases.items():
        model = get_peft_model(MODELS[model_name](), LoraConfig(**arguments))
        with tempfile.TemporaryDirectory() as folder:
            save(model, Path(folder))
            text = (Path(folder) / "adapter_config.json").read_text()
        (out / f"{name}.json").write_text(normalised(text))


def fill(model):
    """Every adapter tensor and saved copy gets small reproducible values, B included."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


ADAPTER_CASES = {
    "mlp": ("mlp", dict(target_modules=["fc1", "fc2"], r=4, lora_alpha=16)),
    "mlp_bias_all": ("mlp", dict(target_modules=["fc1"], r=2, bias="all")),
    "mlp_saved_bias_all": ("mlp", dict(target_modules=["fc1"], r=2, bias="all", modules_to_save=["fc2"])),
    "mlp_lora_only": ("mlp", dict(target_modules=["fc1"], r=2, bias="lora_only")),
    "llama": ("llama", dict(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], r=2, lora_alpha=4,
                            rank_pattern={"v_proj": 3}, use_rslora=True)),
    "llama_dora_saved": ("llama", dict(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2, use_dora=True,
                                       modules_to_save=["lm_head"])),
    "llama_embedding": ("llama", dict(task_type="CAUSAL_LM", target_modules=["embed_tokens", "q_proj"], r=2)),
    "llama_tokens": ("llama", dict(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2,
                                   trainable_token_indices=[1, 5])),
    "llama_lora_bias": ("llama", dict(task_type="CAUSAL_LM", target_modules=["q_proj"], r=2, lora_bias=True)),
    "llama_seq_cls": ("llama_cls", dict(task_type="SEQ_CLS", target_modules=["v_proj"], r=2)),
}


def write_adapters(out):
    for name, (model_name, arguments) in ADAPTER_CASES.items():
        torch.manual_seed(0)
        model = get_peft_model(MODELS[model_name](), LoraConfig(**arguments))
        fill(model)
        directory = out / name
        directory.mkdir(parents=True, exist_ok=True)
        save(model, directory)
        path = directory / "adapter_config.json"
        path.write_text(normalised(path.read_text()))
        os.chmod(directory / "adapter_model.safetensors", 0o644)
        if name == "mlp":
            keys = [k for k in model.state_dict() if "lora_" in k or "base_layer" in k]
            (out / "mlp_state_keys.json").write_text(json.dumps(sorted(keys), indent=1) + "\n")
            pickled = out / "mlp_bin"
            pickled.mkdir(exist_ok=True)
            model.save_pretrained(pickled, safe_serialization=False)
            (pickled / "README.md").unlink()
            path = pickled / "adapter_config.json"
            path.write_text(normalised(path.read_text()))


def main():
    out = Path(sys.argv[1])
    torch.manual_seed(0)
    write_configs(out / "configs")
    write_adapters(out / "adapters")
    models = {name: modules_of(make()) for name, make in MODELS.items()}
    dump = dict(indent=1, ensure_ascii=False)
    (out / "models.json").write_text(json.dumps(models, **dump) + "\n")
    answers = [target_answer(model, arguments) for model, arguments in TARGET_CASES]
    (out / "targets.json").write_text(json.dumps(answers, **dump) + "\n")
    (out / "patterns.json").write_text(json.dumps(pattern_answers(), **dump) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes tests/golden/adapter/kinds with the installed PEFT: every kind of adapter, small, with its base and what it adds.

Usage: make_kind_fixtures.py OUTPUT_DIRECTORY [--older]

adapters/NAME/         adapter_config.json and adapter_model.safetensors (or .bin) of save_pretrained, the set-valued
                       arrays of the configuration sorted.
bases/NAME/            model.safetensors and config.json of the base.
deltas/NAME.safetensors   F64, by the base's parameter name and in its layout: what PEFT adds to that parameter.
                       Measured by merging in float64; for DoRA the plain product (get_delta_weight); for grouped
                       convolutions, which PEFT cannot merge, the response of lora_B(lora_A(x)) to unit inputs.
manifest.json          one entry an adapter, see tests/golden/adapter/README.md. Entries of other runs are kept.

--older writes the few cases for a PEFT from before 0.21 (its package comes first in PYTHONPATH); their names end with
the release.
"""

import json
import os
import sys
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import torch
import transformers

try:
    import peft
except ImportError:
    # PEFT 0.17 imports a name that transformers 5 has dropped, and uses it for prompts only. The failed import leaves
    # another module object behind.
    sys.modules["transformers"].HybridCache = transformers.StaticCache
    import peft

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

VERSION = peft.__version__
SET_VALUED = ("target_modules", "exclude_modules", "target_parameters")


class Net(nn.Module):
    """Modules by name; `order` is what forward would call (PEFT never runs it while saving)."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


class Experts(nn.Module):
    def __init__(self, experts, width, inner, is_transposed=False):
        super().__init__()
        up, down = (2 * inner, width), (width, inner)
        if is_transposed:
            self.is_transposed = True
            up, down = up[::-1], down[::-1]
        self.gate_up_proj = nn.Parameter(torch.randn(experts, *up) * 0.1)
        self.down_proj = nn.Parameter(torch.randn(experts, *down) * 0.1)


class ExpertsWithRouter(Experts):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.router = nn.Linear(4, 3)


def mlp():
    return Net(fc1=nn.Linear(10, 20), fc2=nn.Linear(20, 2))


def stack():
    block = lambda: Net(attn=Net(q_proj=nn.Linear(6, 6), v_proj=nn.Linear(6, 4)), mlp=Net(up=nn.Linear(6, 8)))
    return Net(layers=nn.ModuleList(block() for _ in range(3)), head=nn.Linear(6, 3))


def llama_config(**extra):
    return transformers.LlamaConfig(
        vocab_size=24, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, **extra)


def bert():
    return transformers.BertForMaskedLM(transformers.BertConfig(
        vocab_size=24, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=16))


def mixtral():
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(
        vocab_size=16, hidden_size=8, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=3, max_position_embeddings=32))


def gpt_oss():
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=3, head_dim=4, max_position_embeddings=32))


BASES = {
    "mlp": mlp,
    "stack": stack,
    "conv1d": lambda: Net(h=nn.ModuleList([Net(c_attn=Conv1D(18, 6), c_proj=Conv1D(6, 8))])),
    "embedding": lambda: Net(embed=nn.Embedding(12, 5), out=nn.Linear(5, 12)),
    "convs": lambda: Net(c1=nn.Conv1d(4, 6, 3), c2=nn.Conv2d(4, 6, (3, 2)), c3=nn.Conv3d(2, 4, (2, 1, 2)),
                         point=nn.Conv2d(6, 8, 1), point1=nn.Conv1d(6, 8, 1)),
    "grouped": lambda: Net(conv=nn.Conv2d(4, 6, 3, groups=2)),
    "mha": lambda: Net(attn=nn.MultiheadAttention(6, 2), head=nn.Linear(6, 3)),
    "experts": lambda: Net(mlp=Net(experts=Experts(3, 4, 5)), head=nn.Linear(4, 4)),
    "experts_transposed": lambda: Net(mlp=Net(experts=Experts(3, 4, 5, True)), head=nn.Linear(4, 4)),
    "experts_square": lambda: Net(mlp=Net(experts=Experts(3, 4, 2)), head=nn.Linear(4, 4)),
    "experts_router": lambda: Net(mlp=Net(experts=ExpertsWithRouter(3, 4, 5))),
    "experts_one": lambda: Net(mlp=Net(experts=Experts(1, 4, 5)), head=nn.Linear(4, 4)),
    "llama": lambda: transformers.LlamaForCausalLM(llama_config()),
    "llama_tied": lambda: transformers.LlamaForCausalLM(llama_config(tie_word_embeddings=True)),
    "bert": bert,
    "mixtral": mixtral,
    "gpt_oss": gpt_oss,
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=24, n_positions=16, n_embd=8, n_layer=1, n_head=2)),
    "bert_cls": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(
        vocab_size=24, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=16, num_labels=3)),
}
TRANSFORMERS = {"llama", "llama_tied", "bert", "mixtral", "gpt_oss", "gpt2", "bert_cls"}

CAUSAL = dict(task_type="CAUSAL_LM")


def sub(name, **arguments):
    """A nested configuration that only newer releases have."""
    return getattr(peft, name)(**arguments)


# name: (kind, base, LoraConfig arguments[, options]); a callable gives arguments lazily.
CASES = {
    "linear": ("linear", "mlp", dict(target_modules=["fc1", "fc2"], r=2, lora_alpha=6)),
    "linear_rslora": ("linear", "mlp", dict(target_modules=["fc1"], r=4, lora_alpha=6, use_rslora=True)),
    "linear_dora": ("dora", "mlp", dict(target_modules=["fc1"], r=2, use_dora=True)),
    "linear_lora_bias": ("lora_bias", "mlp", dict(target_modules=["fc1"], r=2, lora_bias=True)),
    "bias_all": ("bias", "mlp", dict(target_modules=["fc1"], r=2, bias="all")),
    "bias_lora_only": ("bias", "mlp", dict(target_modules=["fc1"], r=2, bias="lora_only")),
    "bias_all_saved": ("bias", "mlp", dict(target_modules=["fc1"], r=2, bias="all", modules_to_save=["fc2"])),
    "conv1d": ("conv1d", "conv1d", dict(target_modules=["c_attn", "c_proj"], r=2, lora_alpha=3)),
    "conv1d_rslora": ("conv1d", "conv1d", dict(target_modules=["c_attn"], r=2, use_rslora=True)),
    "conv1d_dora": ("dora", "conv1d", dict(target_modules=["c_attn"], r=2, use_dora=True)),
    "embedding": ("embedding", "embedding", dict(target_modules=["embed"], r=2, lora_alpha=3)),
    "embedding_rslora": ("embedding", "embedding", dict(target_modules=["embed", "out"], r=2, use_rslora=True)),
    "embedding_dora": ("dora", "embedding", dict(target_modules=["embed"], r=2, use_dora=True)),
    "convolutions": ("convolution", "convs", dict(target_modules=["c1", "c2", "c3", "point", "point1"], r=2, lora_alpha=5)),
    "convolutions_rslora": ("convolution", "convs", dict(target_modules=["c2"], r=2, use_rslora=True)),
    "convolutions_dora": ("dora", "convs", dict(target_modules=["c1", "c2", "c3", "point"], r=2, use_dora=True)),
    "convolutions_lora_bias": ("lora_bias", "convs", dict(target_modules=["c2", "point"], r=2, lora_bias=True)),
    "convolution_grouped": ("convolution", "grouped", dict(target_modules=["conv"], r=4, lora_alpha=3)),
    "attention": ("attention", "mha", dict(target_modules=["attn"], r=2, lora_alpha=3)),
    "attention_patterns": ("attention", "mha", dict(target_modules=["attn", "head"], r=2, rank_pattern={"attn": 3},
                                                    alpha_pattern={"attn": 5}, bias="all")),
    "attention_lora_only": ("attention", "mha", dict(target_modules=["attn"], r=2, bias="lora_only", use_rslora=True)),
    "parameter_2d": ("parameter", "mlp", dict(target_modules=[], target_parameters=["fc1.weight"], r=2)),
    "parameter_2d_beside_linear": ("parameter", "mlp", dict(target_modules=["fc2"], target_parameters=["fc1.weight"],
                                                           r=2, bias="all")),
    "experts": ("parameter", "experts", dict(target_modules=[], target_parameters=["experts.gate_up_proj"], r=2)),
    "experts_two": ("parameter", "experts", dict(
        target_modules=["head"], target_parameters=["experts.down_proj", "experts.gate_up_proj"], r=2, lora_alpha=6)),
    "experts_two_ranks": ("parameter", "experts", dict(
        target_modules=[], target_parameters=["experts.gate_up_proj", "experts.down_proj"], r=2,
        rank_pattern={"down_proj": 3}, alpha_pattern={"experts.gate_up_proj": 5}, use_rslora=True)),
    "experts_transposed": ("parameter", "experts_transposed", dict(
        target_modules=[], target_parameters=["gate_up_proj", "mlp.experts.down_proj"], r=2)),
    "experts_square": ("parameter", "experts_square", dict(
        target_modules=[], target_parameters=["experts.gate_up_proj"], r=2)),
    "experts_one": ("parameter", "experts_one", dict(target_modules=[], target_parameters=["experts.down_proj"], r=2)),
    "experts_bias_all": ("parameter", "experts", dict(
        target_modules=[], target_parameters=["experts.gate_up_proj", "experts.down_proj"], r=2, bias="all")),
    "experts_with_router": ("parameter", "experts_router", dict(
        target_modules=["router"], target_parameters=["experts.gate_up_proj", "experts.down_proj"], r=2, bias="all",
        rank_pattern={"^mlp.experts.router": 3})),
    "mixtral_experts": ("parameter", "mixtral", dict(
        **CAUSAL, target_modules=["q_proj"], r=2,
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])),
    "mixtral_old_names": ("parameter", "mixtral", dict(**CAUSAL, target_modules=["q_proj", "w1", "w2", "w3"], r=2)),
    "gpt_oss_experts": ("parameter", "gpt_oss", dict(
        **CAUSAL, target_modules=["q_proj"], r=2,
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])),
    "modules_to_save": ("saved", "llama", dict(**CAUSAL, target_modules=["q_proj"], r=2, modules_to_save=["lm_head", "norm"])),
    "modules_to_save_classifier": ("saved", "bert_cls", dict(task_type="SEQ_CLS", target_modules=["query", "value"], r=2)),
    "tokens_list": ("tokens", "llama", dict(**CAUSAL, target_modules=["q_proj"], r=2, trainable_token_indices=[7, 1, 5])),
    "tokens_object": ("tokens", "llama", dict(**CAUSAL, target_modules=["q_proj"], r=2,
                                              trainable_token_indices={"embed_tokens": [0, 3], "lm_head": [2]})),
    "tokens_gpt2": ("tokens", "gpt2", dict(**CAUSAL, target_modules=["c_attn"], r=2, trainable_token_indices=[4, 2])),
    "tokens_tied": ("tied", "llama_tied", dict(**CAUSAL, target_modules=["q_proj"], r=2, trainable_token_indices=[7, 1])),
    "tied_independent": ("tied", "llama_tied", dict(**CAUSAL, target_modules=["embed_tokens", "lm_head"], r=2)),
    "tied_head_only": ("tied", "llama_tied", dict(**CAUSAL, target_modules=["q_proj", "lm_head"], r=2)),
    "tied_together": ("tied", "llama_tied", lambda: dict(**CAUSAL, target_modules=["q_proj", "embed_tokens", "lm_head"], r=2,
                                                         ensure_weight_tying=True)),
    "tied_saved": ("tied", "llama_tied", lambda: dict(**CAUSAL, target_modules=["q_proj"], r=2, modules_to_save=["embed_tokens"],
                                                      ensure_weight_tying=True)),
    "tied_saved_bert": ("tied", "bert", lambda: dict(target_modules=["query"], r=2, modules_to_save=["word_embeddings"],
                                                     ensure_weight_tying=True)),
    "saved_embeddings": ("saved", "llama", dict(**CAUSAL, target_modules=["q_proj", "embed_tokens", "lm_head"], r=2)),
    "saved_embeddings_resized": ("saved", "llama", dict(**CAUSAL, target_modules=["q_proj"], r=2),
                                 dict(save=dict(save_embedding_layers=True))),
    "patterns": ("linear", "stack", dict(target_modules=["q_proj", "v_proj", "up"], r=4, lora_alpha=8,
                                         rank_pattern={"^layers.0.attn.q_proj": 3, "v_proj": 2, r"layers\.2\..*up": 1},
                                         alpha_pattern={"attn.v_proj": 3, "^layers.1.mlp.up": 0.5})),
    # Alphas that overlap, in the order in which the sorted file has them: only then do the weights mean the same
    # after a reload.
    "patterns_overlapping": ("linear", "stack", dict(target_modules=["q_proj"], r=2,
                                                     alpha_pattern={"layers.1.attn.q_proj": 3, "q_proj": 5})),
    "layers_to_transform": ("linear", "stack", dict(target_modules=["q_proj"], r=2, layers_to_transform=[0, 2],
                                                    layers_pattern="layers")),
    "exclude": ("linear", "stack", dict(target_modules=["q_proj", "v_proj"], r=2, exclude_modules=["layers.1.attn.q_proj"])),
    "regex": ("linear", "stack", dict(target_modules=r"layers\.[02]\.attn\.(q|v)_proj", r=2)),
    "all_linear": ("linear", "stack", dict(target_modules="all-linear", r=2)),
    "pissa": ("initialisation", "mlp", dict(target_modules=["fc1"], r=2, init_lora_weights="pissa")),
    "olora": ("initialisation", "mlp", dict(target_modules=["fc1"], r=2, init_lora_weights="olora")),
    "orthogonal": ("initialisation", "mlp", lambda: dict(target_modules=["fc1"], r=2, init_lora_weights="orthogonal")),
    "kasa": ("kasa", "mlp", lambda: dict(target_modules=["fc1"], r=2, lora_alpha=5, kasa_config=sub("KasaConfig"))),
    "bdlora": ("bdlora", "stack", lambda: dict(
        target_modules=["q_proj", "up"], r=4, lora_alpha=5,
        use_bdlora=sub("BdLoraConfig", target_modules_bd_a=["q_proj"], target_modules_bd_b=["up"], nblocks=2))),
    "monteclora": ("variant", "mlp", lambda: dict(target_modules=["fc1"], r=2, monteclora_config=sub("MontecloraConfig"))),
    "velora": ("variant", "mlp", lambda: dict(target_modules=["fc1"], r=2,
                                              velora_config=sub("VeloraConfig", num_groups=2))),
    "layer_replication": ("replicated", "llama", dict(**CAUSAL, target_modules=["q_proj", "down_proj"], r=2,
                                                      layer_replication=[[0, 2], [1, 2]])),
    "bf16": ("dtype", "mlp", dict(target_modules=["fc1"], r=2), dict(dtype=torch.bfloat16)),
    "fp16": ("dtype", "mlp", dict(target_modules=["fc1"], r=2), dict(dtype=torch.float16)),
    "bf16_kept": ("dtype", "mlp", dict(target_modules=["fc1"], r=2), dict(dtype=torch.bfloat16, make=dict(autocast_adapter_dtype=False))),
    "named": ("named", "mlp", dict(target_modules=["fc1"], r=2), dict(adapter="mine")),
    "pickle": ("pickle", "mlp", dict(target_modules=["fc1"], r=2, modules_to_save=["fc2"]), dict(save=dict(safe_serialization=False))),
    "pickle_experts": ("pickle", "experts", dict(
        target_modules=[], target_parameters=["experts.gate_up_proj", "experts.down_proj"], r=2),
        dict(save=dict(safe_serialization=False))),
    "pickle_attention": ("pickle", "mha", dict(target_modules=["attn"], r=2), dict(save=dict(safe_serialization=False))),
    "pickle_convolution": ("pickle", "convs", dict(target_modules=["c1", "point"], r=2, use_dora=True),
                           dict(save=dict(safe_serialization=False))),
}

# What a release before 0.21 gets: the contract that changed over time.
OLDER_CASES = ["linear", "linear_dora", "linear_lora_bias", "bias_lora_only", "conv1d", "embedding", "convolutions",
               "attention", "parameter_2d", "experts", "experts_two", "experts_transposed", "experts_square",
               "modules_to_save", "tokens_list", "tied_independent", "pickle"]
# PEFT 0.17 does not run with models of transformers 5; its cases are on plain modules.
PLAIN_ONLY = ("0.17.",)


def normalised(path):
    document = json.loads(path.read_text())
    for field in SET_VALUED:
        if isinstance(document.get(field), list):
            document[field].sort()
    # The path of the machine that made the fixture.
    path.write_text(json.dumps(document, indent=2, sort_keys=True))


def fill(model):
    """Adapter tensors, saved copies and buffers of variants get small reproducible values, B included."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def base_path(name):
    name = name.removeprefix("base_model.model.")
    return ".".join(part for part in name.split(".") if part != "base_layer")


def impulse_response(layer, adapter):
    """[out, in * kernel] of lora_B(lora_A(x)) times the scaling, for an unpadded convolution."""
    a, b = layer.lora_A[adapter], layer.lora_B[adapter]
    inputs = a.weight.shape[1] * a.weight[0, 0].numel()
    x = torch.eye(inputs, dtype=a.weight.dtype).reshape(inputs, *a.weight.shape[1:])
    return (b(a(x)).reshape(inputs, -1) * layer.scaling[adapter]).t()


def merged_change(layer, owner, parameter, merge):
    before = getattr(owner(), parameter).detach().clone()
    merge()
    return getattr(owner(), parameter).detach() - before


def deltas_of(model, adapter):
    """By base parameter: what PEFT adds, in float64. Layers are merged one by one, innermost first."""
    model = model.double()
    found = {}
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer) and adapter in
              (set(m.lora_A) | set(m.lora_embedding_A))]
    attention = [n for n, m in layers if type(m).__name__ == "MultiheadAttention"]
    layers = [(n, m) for n, m in layers if n.removesuffix(".base_layer.out_proj") not in attention or n in attention]
    with torch.no_grad():
        for name, layer in reversed(layers):
            path = base_path(name)
            kind = type(layer).__name__
            if kind == "MultiheadAttention":
                found[path + ".in_proj_weight"] = layer.get_delta_weight(adapter)
                out = lambda: layer.base_layer.out_proj.base_layer
                found[path + ".out_proj.weight"] = merged_change(layer, out, "weight", layer.merge)
            elif kind == "ParamWrapper":
                parameter = layer.parameter_name
                found[f"{path}.{parameter}"] = merged_change(layer, layer.get_base_layer, parameter, layer.merge)
            elif layer.use_dora.get(adapter):
                found[path + ".weight"] = layer.get_delta_weight(adapter)
            elif getattr(layer.get_base_layer(), "groups", 1) > 1:
                found[path + ".weight"] = impulse_response(layer, adapter)
            else:
                found[path + ".weight"] = merged_change(layer, layer.get_base_layer, "weight", layer.merge)
    return {name: value.detach().double().contiguous().clone() for name, value in found.items()}


def write_base(out, name, model):
    directory = out / "bases" / name
    if directory.exists():
        return
    directory.mkdir(parents=True)
    state = {}
    seen = {}
    for key, value in model.state_dict().items():
        if value.data_ptr() in seen and value.numel():
            continue  # a tied head: transformers leaves it out too
        seen[value.data_ptr()] = key
        state[key] = value.contiguous()
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    os.chmod(directory / "model.safetensors", 0o644)
    if name.split("-")[0] in TRANSFORMERS:
        document = model.config.to_dict()
        document["architectures"] = [type(model).__name__]
        document.pop("transformers_version", None)
    else:
        document = {"architectures": ["Net"], "model_type": "plain"}
    (directory / "config.json").write_text(json.dumps(document, indent=2, sort_keys=True, default=str) + "\n")


def make(base, arguments, options):
    torch.manual_seed(0)
    model = BASES[base]().to(options.get("dtype", torch.float32))
    state = {k: v.clone() for k, v in model.state_dict().items()}
    return model, state, get_peft_model(model, LoraConfig(**arguments), adapter_name=options.get("adapter", "default"),
                                        **options.get("make", {}))


def write_case(out, name, case):
    kind, base, arguments, *rest = case
    options = rest[0] if rest else {}
    arguments = arguments() if callable(arguments) else arguments
    base_name = base + {torch.bfloat16: "-bf16", torch.float16: "-fp16"}.get(options.get("dtype"), "")
    torch.manual_seed(0)
    write_base(out, base_name, BASES[base]().to(options.get("dtype", torch.float32)))
    _, _, model = make(base, arguments, options)
    fill(model)
    adapter = options.get("adapter", "default")
    directory = out / "adapters" / name
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, **options.get("save", {}))
    (directory / "README.md").unlink(missing_ok=True)
    place = directory if adapter == "default" else directory / adapter
    (place / "README.md").unlink(missing_ok=True)
    normalised(place / "adapter_config.json")
    for file in place.glob("adapter_model.*"):
        os.chmod(file, 0o644)
    (out / "deltas").mkdir(exist_ok=True)
    delta_file = out / "deltas" / f"{name}.safetensors"
    save_file(deltas_of(model, adapter), delta_file)
    os.chmod(delta_file, 0o644)
    return {
        "name": name, "kind": kind, "peft_version": VERSION,
        "path": str(place.relative_to(out)), "base": f"bases/{base_name}",
        "deltas": f"deltas/{name}.safetensors", "healthy": True,
    }


def write_converted(out):
    """PiSSA trained, then saved as a plain LoRA on the untouched base."""
    case = dict(target_modules=["fc1"], r=2, lora_alpha=4, init_lora_weights="pissa")
    _, state, model = make("mlp", case, {})
    initial = out / "initial"
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(initial)
    model.peft_config["default"].init_lora_weights = "pissa"
    fill(model)
    directory = out / "adapters" / "pissa_converted"
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, path_initial_model_for_weight_conversion=str(initial))
    (directory / "README.md").unlink()
    for file in initial.iterdir():
        file.unlink()
    initial.rmdir()
    normalised(directory / "adapter_config.json")
    os.chmod(directory / "adapter_model.safetensors", 0o644)
    base = mlp()
    base.load_state_dict(state)
    loaded = PeftModel.from_pretrained(base, directory)
    save_file(deltas_of(loaded, "default"), out / "deltas" / "pissa_converted.safetensors")
    os.chmod(out / "deltas" / "pissa_converted.safetensors", 0o644)
    return {"name": "pissa_converted", "kind": "initialisation", "peft_version": VERSION,
            "path": "adapters/pissa_converted", "base": "bases/mlp",
            "deltas": "deltas/pissa_converted.safetensors", "healthy": True}


def write_rewritten(out):
    """Layouts of older releases and of other tools: the tensors of `linear_dora` and `linear` under other names."""
    entries = []

    def add(name, source, rename, change, kind="older"):
        directory = out / "adapters" / name
        directory.mkdir(parents=True, exist_ok=True)
        tensors = load_file(out / "adapters" / source / "adapter_model.safetensors")
        save_file({rename(k): v for k, v in tensors.items()}, directory / "adapter_model.safetensors",
                  metadata={"format": "pt"})
        os.chmod(directory / "adapter_model.safetensors", 0o644)
        document = json.loads((out / "adapters" / source / "adapter_config.json").read_text())
        change(document)
        (directory / "adapter_config.json").write_text(json.dumps(document, indent=2, sort_keys=True))
        base = CASES[source][1]
        entries.append({"name": name, "kind": kind, "peft_version": document.get("peft_version"),
                        "path": f"adapters/{name}", "base": f"bases/{base}",
                        "deltas": f"deltas/{source}.safetensors", "healthy": True})

    def drop_version(document):
        del document["peft_version"]

    def minimal(document):
        kept = ("peft_type", "target_modules", "r", "lora_alpha")
        for field in list(document):
            if field not in kept:
                del document[field]

    def before_0_4(document):
        minimal(document)
        document.update(enable_lora=None, merge_weights=False, bias="none", fan_in_fan_out=False, inference_mode=True,
                        lora_dropout=0.0, modules_to_save=None, task_type=None, base_model_name_or_path="x")

    add("magnitude_with_weight", "linear_dora",
        lambda k: k + ".weight" if k.endswith("lora_magnitude_vector") else k, drop_version)
    add("no_peft_version", "linear", lambda k: k, drop_version)
    add("minimal_config", "linear", lambda k: k, minimal)
    add("enable_lora", "linear", lambda k: k, before_0_4)
    add("name_in_keys", "linear", lambda k: k.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."),
        lambda document: None, "named")
    add("other_name_in_keys", "linear_dora",
        lambda k: k.replace(".lora_A.", ".lora_A.tuned.").replace(".lora_B.", ".lora_B.tuned.")
        + (".tuned" if k.endswith("magnitude_vector") else ""),
        lambda document: None, "named")
    return entries


def write_qalora(out):
    """PEFT adapts only GPTQ layers this way, which need a GPU; its own forward runs on the bare factors."""
    from types import SimpleNamespace

    from peft.tuners.lora.variants import QALoraLinearVariant

    group, width = 5, 10
    config = LoraConfig(target_modules=["fc1"], r=2, lora_alpha=6, use_qalora=True, qalora_group_size=group)
    generator = torch.Generator().manual_seed(7)
    a = nn.Linear(width // group, 2, bias=False)
    b = nn.Linear(2, 20, bias=False)
    with torch.no_grad():
        for layer in (a, b):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    directory = out / "adapters" / "qalora"
    directory.mkdir(parents=True, exist_ok=True)
    save_file({"base_model.model.fc1.lora_A.weight": a.weight.detach().clone(),
               "base_model.model.fc1.lora_B.weight": b.weight.detach().clone()},
              directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config.inference_mode = True
    config.save_pretrained(directory)
    normalised(directory / "adapter_config.json")
    layer = SimpleNamespace(lora_A={"x": a.double()}, lora_B={"x": b.double()}, lora_dropout={"x": nn.Identity()},
                            scaling={"x": 3.0}, qalora_group_size={"x": group}, in_features=width, training=False)
    eye = torch.eye(width, dtype=torch.float64)
    change = QALoraLinearVariant.forward(layer, "x", eye, torch.zeros(width, 20, dtype=torch.float64))
    save_file({"fc1.weight": change.detach().t().contiguous()}, out / "deltas" / "qalora.safetensors")
    for file in (directory / "adapter_model.safetensors", out / "deltas" / "qalora.safetensors"):
        os.chmod(file, 0o644)
    return {"name": "qalora", "kind": "qalora", "peft_version": VERSION, "path": "adapters/qalora",
            "base": "bases/mlp", "deltas": "deltas/qalora.safetensors", "healthy": True}


def write_several(out):
    """Two named adapters of one model: sub-directories of one parent, which is no adapter itself."""
    torch.manual_seed(0)
    model = get_peft_model(mlp(), LoraConfig(target_modules=["fc1"], r=2), adapter_name="first")
    model.add_adapter("second", LoraConfig(target_modules=["fc1", "fc2"], r=3, lora_alpha=5))
    model.base_model.set_adapter(["first", "second"])
    fill(model)
    parent = out / "adapters" / "several"
    parent.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(parent)
    (parent / "README.md").unlink()
    entries = []
    model.base_model.set_adapter("first")
    for adapter in ("first", "second"):
        normalised(parent / adapter / "adapter_config.json")
        os.chmod(parent / adapter / "adapter_model.safetensors", 0o644)
        torch.manual_seed(0)
        loaded = PeftModel.from_pretrained(mlp(), parent / adapter)
        delta_file = out / "deltas" / f"several_{adapter}.safetensors"
        save_file(deltas_of(loaded, "default"), delta_file)
        os.chmod(delta_file, 0o644)
        entries.append({"name": f"several_{adapter}", "kind": "named", "peft_version": VERSION,
                        "path": f"adapters/several/{adapter}", "base": "bases/mlp",
                        "deltas": f"deltas/several_{adapter}.safetensors", "healthy": True})
    return entries


def main():
    out = Path(sys.argv[1])
    is_older = "--older" in sys.argv
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    if is_older:
        for name in OLDER_CASES:
            case = CASES[name]
            if VERSION.startswith(PLAIN_ONLY) and case[1] in TRANSFORMERS:
                continue
            entries.append(write_case(out, f"{name}-{VERSION}", case))
    else:
        for name, case in CASES.items():
            entries.append(write_case(out, name, case))
        entries += [write_converted(out), write_qalora(out)] + write_rewritten(out) + write_several(out)
    manifest = out / "manifest.json"
    known = json.loads(manifest.read_text()) if manifest.exists() else []
    names = {entry["name"] for entry in entries}
    known = [entry for entry in known if entry["name"] not in names] + entries
    known.sort(key=lambda entry: entry["name"])
    manifest.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()

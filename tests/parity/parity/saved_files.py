"""What `lora save` writes is what PEFT's save_pretrained writes, byte for byte."""

from __future__ import annotations

import json
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from parity.comparison import open_model
from parity.harness import Context, assert_equal, case
from parity.networks import Mlp, make_llama

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def sorted_sets(text: bytes) -> bytes:
    """PEFT's file with the arrays that come from Python sets in order."""
    document = json.loads(text)
    for field in ("target_modules", "exclude_modules"):
        if isinstance(document.get(field), list):
            document[field].sort()
    return json.dumps(document, indent=2, sort_keys=True).encode()


def assert_same_files(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    if (ours / WEIGHTS).read_bytes() != (theirs / WEIGHTS).read_bytes():
        raise AssertionError(f"{WEIGHTS} differs from PEFT's")
    assert_equal(CONFIG, (ours / CONFIG).read_bytes(), sorted_sets((theirs / CONFIG).read_bytes()))


def check_save(context: Context, model: torch.nn.Module, prefix: str = "", container: str = "pth") -> None:
    """Saves the whole wrapped model, base weights included, as a state dict with in-memory names."""
    # PEFT adds the base's embedding to the file when it is a target; `lora save` never does.
    model.save_pretrained(context.folder / "theirs", save_embedding_layers=False)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    if container == "pth":
        torch.save(state, context.folder / "state.pth")
    else:
        state = {name: tensor.clone().contiguous() for name, tensor in state.items()}
        save_file(state, context.folder / "state.safetensors")
    context.run("save", f"state.{container}", "--adapter-config", f"theirs/{CONFIG}", "-o", "ours")
    assert_same_files(context.folder / "ours", context.folder / "theirs")


def mlp(**settings: object) -> torch.nn.Module:
    defaults: dict[str, object] = {"target_modules": ["fc1", "fc2"], "init_lora_weights": False}
    return get_peft_model(Mlp(), LoraConfig(**{**defaults, **settings}))


def llama(context: Context, **settings: object) -> torch.nn.Module:
    base = make_llama(context.root, context.folder / "base")
    defaults: dict[str, object] = {"task_type": "CAUSAL_LM", "init_lora_weights": False}
    return get_peft_model(open_model(base), LoraConfig(**{**defaults, **settings}))


@case
def save_plain(context: Context) -> None:
    check_save(context, mlp())


@case
def save_from_safetensors(context: Context) -> None:
    check_save(context, mlp(), container="safetensors")


@case
def save_ddp_and_compile_prefixes(context: Context) -> None:
    for number, prefix in enumerate(["module.", "_orig_mod.", "module._orig_mod."]):
        folder = context.folder / str(number)
        folder.mkdir()
        inner = Context(context.lora, context.model, context.root, folder)
        check_save(inner, mlp(), prefix=prefix)


@case
def save_llama_default_targets(context: Context) -> None:
    check_save(context, llama(context))


@case
def save_llama_all_linear_patterns(context: Context) -> None:
    model = llama(
        context, target_modules="all-linear", r=4, lora_alpha=10, use_rslora=True, lora_dropout=0.05,
        rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 6}, alpha_pattern={"o_proj": 32},
    )  # fmt: skip
    check_save(context, model)


@case
def save_llama_regular_expression(context: Context) -> None:
    check_save(context, llama(context, target_modules=r".*layers\.1\..*(q|v)_proj"))


@case
def save_llama_layers(context: Context) -> None:
    check_save(context, llama(context, target_modules=["k_proj"], layers_to_transform=[1]))


@case
def save_llama_biases(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base", attention_bias=True)
    for number, bias in enumerate(["all", "lora_only"]):
        folder = context.folder / str(number)
        folder.mkdir()
        inner = Context(context.lora, context.model, context.root, folder)
        config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, bias=bias)
        check_save(inner, get_peft_model(open_model(base), config))


@case
def save_llama_modules_to_save(context: Context) -> None:
    check_save(context, llama(context, modules_to_save=["lm_head"]))


@case
def save_llama_dora(context: Context) -> None:
    check_save(context, llama(context, use_dora=True))


@case
def save_llama_embedding(context: Context) -> None:
    check_save(context, llama(context, target_modules=["embed_tokens", "q_proj"]))


@case
def save_bfloat16(context: Context) -> None:
    check_save(context, llama(context).to(torch.bfloat16))


@case
def save_without_alpha_is_a_usage_error(context: Context) -> None:
    torch.save(mlp().state_dict(), context.folder / "state.pth")
    context.run("save", "state.pth", "-o", "ours", exit_code=2)
    if (context.folder / "ours").exists():
        raise AssertionError("an output was left behind")


@case
def saved_run_is_what_peft_saves(context: Context) -> None:
    """A trained run, saved, loaded and saved again by PEFT: the same two files."""
    from peft import PeftModel

    base = make_llama(context.root, context.folder / "base")
    context.run(
        "train", "--base", base, "--data", context.root / "docs/examples/counting.jsonl", "--seq-len", 32,
        "--steps", 4, "--task", "causal-lm", "--run-dir", "run",
    )  # fmt: skip
    context.run("save", "run", "-o", "ours")
    model = PeftModel.from_pretrained(open_model(base), context.folder / "ours")
    model.save_pretrained(context.folder / "theirs")
    assert_same_files(context.folder / "ours", context.folder / "theirs")

"""Adapters that PEFT wrote, damaged as the wild damages them, and repaired by `lora repair`.

Of every repaired adapter: the tensors are the original's, byte for byte; PEFT loads it without a
word about missing keys; and it computes the original's logits, bit for bit.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import warnings
from typing import Callable

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from parity.comparison import open_model
from parity.harness import Context, assert_equal, case
from parity.networks import make_llama
from parity.saved_files import CONFIG, WEIGHTS, sorted_sets

PREFIX = "base_model.model."
Rename = Callable[[str], str]

WRAPPED: dict[str, Rename] = {
    "compile": lambda key: "_orig_mod." + key,
    "ddp": lambda key: "module." + key,
    "fsdp": lambda key: "_fsdp_wrapped_module." + key,
    "fsdp inside": lambda key: key.replace(".layers.", "._fsdp_wrapped_module.layers."),
    "compile inside": lambda key: PREFIX + "_orig_mod." + key.removeprefix(PREFIX),
    "ddp and compile": lambda key: "module._orig_mod." + key,
    "no prefix": lambda key: key.removeprefix(PREFIX),
    "prefix twice": lambda key: PREFIX + key,
}
# These need the base to tell a wrapper from a module.
WRAPPED_WITH_BASE: dict[str, Rename] = {
    "thinker": lambda key: "thinker." + key,
    "inner": lambda key: ".".join(
        part + ".inner" if part.isdigit() and ".layers." in key else part for part in key.split(".")
    ),
    "language_model": lambda key: key.replace(PREFIX + "model.", PREFIX + "model.language_model."),
    "flat": lambda key: key.replace(PREFIX + "model.", PREFIX + "transformer.decoder."),
}
KINDS: dict[str, dict[str, object]] = {
    "plain": {"target_modules": ["q_proj", "v_proj"]},
    "all linear, patterns, rslora": {
        "target_modules": "all-linear", "r": 4, "lora_alpha": 10, "use_rslora": True,
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6}, "alpha_pattern": {"o_proj": 32},
    },
    "dora": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
    "lora_bias": {"target_modules": ["q_proj", "o_proj"], "lora_bias": True},
    "saved head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "biases": {"target_modules": ["q_proj", "k_proj"], "bias": "lora_only"},
    "all biases": {"target_modules": ["q_proj", "k_proj"], "bias": "all"},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 7, 11]},
}  # fmt: skip


def make_adapter(context: Context, settings: dict[str, object]) -> tuple[pathlib.Path, pathlib.Path]:
    """A base and, in `whole`, an adapter on it with every value away from its start."""
    base = make_llama(context.root, context.folder / "base", attention_bias="bias" in settings)
    model = get_peft_model(
        open_model(base), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    )
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    whole = context.folder / "whole"
    model.save_pretrained(whole, save_embedding_layers=False)
    return base, whole


def logits(base: pathlib.Path, adapter: pathlib.Path) -> torch.Tensor:
    """What PEFT computes; a warning about keys is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*(missing|unexpected|not match|ignored).*")
        model = PeftModel.from_pretrained(open_model(base), adapter).eval()
    ids = (torch.arange(24).view(2, 12) * 37 + 5) % 512
    ids[0, :3] = torch.tensor([3, 7, 11])
    with torch.no_grad():
        return model(input_ids=ids).logits


class Patient:
    """A whole adapter and copies of it to damage."""

    def __init__(self, context: Context, settings: dict[str, object]) -> None:
        self.context = context
        self.base, self.whole = make_adapter(context, settings)
        self.expected = logits(self.base, self.whole)
        self.tensors = load_file(self.whole / WEIGHTS)
        self.damaged = context.folder / "damaged"
        self.copies = 0

    def damage(self) -> pathlib.Path:
        shutil.rmtree(self.damaged, ignore_errors=True)
        shutil.copytree(self.whole, self.damaged)
        return self.damaged

    def write(self, tensors: dict[str, torch.Tensor]) -> None:
        self.damage()
        save_file(tensors, self.damaged / WEIGHTS, {"format": "pt"})

    def rename(self, rename: Rename) -> None:
        self.write({rename(key): tensor for key, tensor in self.tensors.items()})

    def edit(self, **fields: object) -> None:
        document = json.loads((self.damaged / CONFIG).read_text())
        document.update(fields)
        for field in [name for name, value in fields.items() if value is Ellipsis]:
            del document[field]
        (self.damaged / CONFIG).write_text(json.dumps(document, indent=2, sort_keys=True))

    def repair(self, *flags: object, config: bool = True, changes: bool = True) -> dict:
        """Repairs `damaged` and holds the result against `whole`."""
        self.copies += 1
        out = self.context.folder / f"repaired-{self.copies}"
        result = self.context.run("repair", self.damaged, "-o", out, *flags)
        if bool(result["changes"]) != changes:
            raise AssertionError(f"changes: {result['changes']}")
        if not changes:
            if out.exists():
                raise AssertionError("written although there was nothing to repair")
            return result
        if (out / WEIGHTS).read_bytes() != (self.whole / WEIGHTS).read_bytes():
            raise AssertionError(f"{WEIGHTS} differs from the original")
        if config:
            assert_equal(CONFIG, (out / CONFIG).read_bytes(), sorted_sets((self.whole / CONFIG).read_bytes()))
        if not torch.equal(logits(self.base, out), self.expected):
            raise AssertionError("PEFT computes other logits with the repaired adapter")
        return result


@case
def repair_healthy_adapters_need_nothing(context: Context) -> None:
    for number, (name, settings) in enumerate(KINDS.items()):
        inner = Context(context.lora, context.model, context.root, context.folder / str(number))
        inner.folder.mkdir()
        patient = Patient(inner, settings)
        patient.damage()
        patient.repair(changes=False)
        patient.repair("--base", patient.base, changes=False)
    context.note(f"{len(KINDS)} kinds")


@case
def repair_wrapped_names_of_every_kind(context: Context) -> None:
    count = 0
    for number, (name, settings) in enumerate(KINDS.items()):
        inner = Context(context.lora, context.model, context.root, context.folder / str(number))
        inner.folder.mkdir()
        patient = Patient(inner, settings)
        for damage, rename in WRAPPED.items():
            patient.rename(rename)
            try:
                patient.repair()
            except AssertionError as error:
                raise AssertionError(f"{name}, {damage}: {error}") from error
            count += 1
        for damage, rename in WRAPPED_WITH_BASE.items():
            patient.rename(rename)
            try:
                patient.repair("--base", patient.base)
            except AssertionError as error:
                raise AssertionError(f"{name}, {damage}: {error}") from error
            count += 1
    context.note(f"{count} damaged adapters")


@case
def repair_damage_silences_peft(context: Context) -> None:
    """The damages are real: PEFT loads none of these tensors, and says so or computes the base."""
    patient = Patient(context, KINDS["plain"])
    base = open_model(patient.base)
    ids = (torch.arange(24).view(2, 12) * 37 + 5) % 512
    ids[0, :3] = torch.tensor([3, 7, 11])
    with torch.no_grad():
        bare = base(input_ids=ids).logits
    for name in ("compile", "ddp", "prefix twice"):
        patient.rename(WRAPPED[name])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = PeftModel.from_pretrained(
                open_model(patient.base), patient.damaged
            ).eval()
        if not any("missing" in str(warning.message).lower() for warning in caught):
            raise AssertionError(f"{name}: PEFT said nothing")
        del model
    if torch.equal(bare, patient.expected):
        raise AssertionError("the whole adapter does nothing")


@case
def repair_adapter_names_and_pickles(context: Context) -> None:
    patient = Patient(context, KINDS["dora"])

    def named(key: str) -> str:
        stem, dot, leaf = key.rpartition(".")
        return f"{key}.chat.weight" if leaf == "lora_magnitude_vector" else f"{stem}.chat.{leaf}"

    patient.rename(named)
    patient.repair()
    patient.damage()
    (patient.damaged / WEIGHTS).unlink()
    torch.save(patient.tensors, patient.damaged / "adapter_model.bin")
    patient.repair()
    (patient.damaged / WEIGHTS).write_bytes(b"")
    patient.repair()
    patient.damage()
    torch.save(patient.tensors, patient.damaged / "adapter_model.bin")
    patient.repair()
    patient.rename(lambda key: key + ".weight" if key.endswith("magnitude_vector") else key)
    patient.repair()


@case
def repair_lost_configurations(context: Context) -> None:
    """Everything but alpha and the task comes back from names and shapes."""
    for number, name in enumerate(
        ["plain", "all linear, patterns, rslora", "dora", "lora_bias", "saved head", "biases", "all biases", "embedding"]
    ):  # fmt: skip
        inner = Context(context.lora, context.model, context.root, context.folder / str(number))
        inner.folder.mkdir()
        settings = dict(KINDS[name])
        # One alpha for all: several cannot be given by one flag.
        settings.pop("alpha_pattern", None)
        patient = Patient(inner, settings)
        patient.damage()
        flags = [
            "--alpha", settings.get("lora_alpha", 8),
            "--rslora" if settings.get("use_rslora") else "--no-rslora",
        ]  # fmt: skip
        for text in (None, "", '{"r": 4, "lora_al'):
            if text is None:
                (patient.damaged / CONFIG).unlink()
            else:
                (patient.damaged / CONFIG).write_text(text)
            inner.run("repair", patient.damaged, "-o", "asked", exit_code=2)
            patient.repair(*flags, config=False)
            patient.repair(*flags, "--base", patient.base, "--task", "causal-lm", config=False)


@case
def repair_lost_indices_are_asked_for(context: Context) -> None:
    patient = Patient(context, KINDS["tokens"])
    patient.damage()
    (patient.damaged / CONFIG).unlink()
    context.run("repair", patient.damaged, "-o", "out", "--alpha", 8, "--no-rslora", exit_code=2)
    patient.repair("--adapter-config", patient.whole / CONFIG)


@case
def repair_wrong_members(context: Context) -> None:
    patient = Patient(context, KINDS["all linear, patterns, rslora"])
    for fields in (
        {"r": 64},
        {"r": "4", "lora_alpha": "10"},
        {"peft_type": ..., "r": 4.0},
        {"merge_weights": False, "enable_lora": None, "runtime_config": {"ephemeral_gpu_offload": False}},
    ):
        patient.damage()
        patient.edit(**fields)
        patient.repair()
    patient.damage()
    patient.edit(rank_pattern={})
    patient.repair(config=False)
    patient.damage()
    patient.edit(target_modules=["q_proj"])
    patient.repair(config=False)
    dora = Context(context.lora, context.model, context.root, context.folder / "dora")
    dora.folder.mkdir()
    patient = Patient(dora, KINDS["dora"])
    patient.damage()
    patient.edit(use_dora=False)
    patient.repair()


@case
def repair_overlapping_patterns_keep_what_peft_computes(context: Context) -> None:
    settings = {"target_modules": ["q_proj", "v_proj"], "alpha_pattern": {"layers.0.self_attn.q_proj": 3, "q_proj": 32}}
    patient = Patient(context, settings)
    patient.damage()
    patient.repair(config=False)
    document = json.loads((context.folder / "repaired-1" / CONFIG).read_text())
    for key in document["alpha_pattern"]:
        if not key.startswith("^model.layers."):
            raise AssertionError(f"{key} is no whole path")


@case
def repair_second_copies_and_base_weights(context: Context) -> None:
    patient = Patient(context, KINDS["plain"])
    first = next(iter(patient.tensors))
    patient.write({**patient.tensors, "module." + first: patient.tensors[first].clone()})
    patient.repair()
    patient.write({**patient.tensors, "module." + first: patient.tensors[first] + 1})
    context.run("repair", patient.damaged, "-o", "no", exit_code=3)
    state = LlamaForCausalLM.from_pretrained(patient.base).state_dict()
    copies = {
        PREFIX + "model.embed_tokens.weight": state["model.embed_tokens.weight"].clone(),
        PREFIX + "model.layers.0.self_attn.q_proj.base_layer.weight": state[
            "model.layers.0.self_attn.q_proj.weight"
        ].clone(),
    }
    patient.write({**patient.tensors, **copies})
    context.run("repair", patient.damaged, "-o", "no", exit_code=3)
    patient.repair("--base", patient.base)


@case
def repair_refuses_what_is_lost(context: Context) -> None:
    patient = Patient(context, KINDS["plain"])
    first = next(iter(patient.tensors))
    for damage in (
        {first: torch.full_like(patient.tensors[first], float("nan"))},
        {first: torch.empty(0)},
    ):
        patient.write({**patient.tensors, **damage})
        context.run("repair", patient.damaged, "-o", "no", exit_code=3)
    patient.write({key: tensor for key, tensor in patient.tensors.items() if key != first})
    context.run("repair", patient.damaged, "-o", "no", exit_code=3)
    patient.damage()
    whole = (patient.damaged / WEIGHTS).read_bytes()
    (patient.damaged / WEIGHTS).write_bytes(whole[:-7])
    context.run("repair", patient.damaged, "-o", "no", exit_code=3)
    if (context.folder / "no").exists():
        raise AssertionError("a refused repair left something behind")

"""Merges made by the real PEFT, proven by `lora verify --merged`; and broken ones, named by it."""

from __future__ import annotations

import copy
import json
import pathlib
import shutil
from typing import Callable

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from parity.comparison import open_model
from parity.harness import Context, assert_equal, case

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
BITWISE = {"merge", "safe_merge", "saved", "unchanged"}


class Linears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(48, 96)
        self.down = nn.Linear(96, 48)
        self.head = nn.Linear(48, 5)


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.square = Conv1D(64, 64)
        self.wide = Conv1D(96, 64)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.out = nn.Linear(32, 64)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(16, 32, 3)
        self.two = nn.Conv2d(16, 32, 3)
        self.point = nn.Conv2d(32, 16, 1)
        self.three = nn.Conv3d(8, 16, 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(32, 4)


class Stack(nn.Module):
    """Experts as bare parameters, [E, out, in]."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(4, 64, 32) * 0.1)
        self.down = nn.Parameter(torch.randn(4, 32, 64) * 0.1)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = Stack()
        self.router = nn.Linear(32, 4)


Kind = tuple[Callable[[], nn.Module], dict]
KINDS: dict[str, Kind] = {
    "linear": (Linears, {"target_modules": ["up", "down"], "r": 8}),
    "rank_1": (Linears, {"target_modules": ["up", "down"], "r": 1}),
    "rank_128": (lambda: nn.ModuleDict({"up": nn.Linear(256, 192)}), {"target_modules": ["up"], "r": 128}),
    "rank_256": (lambda: nn.ModuleDict({"up": nn.Linear(300, 320)}), {"target_modules": ["up"], "r": 256}),
    "few_outputs": (Linears, {"target_modules": ["head"], "r": 4}),
    "rslora": (Linears, {"target_modules": ["up", "down"], "r": 8, "use_rslora": True}),
    "patterns": (
        Linears,
        {"target_modules": ["up", "down"], "r": 8, "rank_pattern": {"up": 4}, "alpha_pattern": {"down": 32}},
    ),
    "lora_bias": (Linears, {"target_modules": ["up", "down"], "r": 8, "lora_bias": True}),
    "bias_all": (Linears, {"target_modules": ["up"], "r": 8, "bias": "all"}),
    "saved_head": (Linears, {"target_modules": ["up"], "r": 8, "modules_to_save": ["head"]}),
    "gpt2_conv1d": (Transposed, {"target_modules": ["square", "wide"], "r": 8, "fan_in_fan_out": True}),
    "embedding": (Words, {"target_modules": ["embed", "out"], "r": 8}),
    "tokens": (Words, {"target_modules": ["out"], "r": 8, "trainable_token_indices": {"embed": [3, 7, 99]}}),
    "convolution": (Convolutions, {"target_modules": ["one", "two", "point", "three"], "r": 8}),
    "attention": (Attention, {"target_modules": ["attn"], "r": 8}),
    "experts": (
        Experts,
        {"target_modules": [], "target_parameters": ["experts.gate", "experts.down"], "r": 4},
    ),
    "dora": (Linears, {"target_modules": ["up", "down"], "r": 8, "use_dora": True}),
    "dora_conv1d": (Transposed, {"target_modules": ["wide"], "r": 8, "fan_in_fan_out": True, "use_dora": True}),
    "dora_embedding": (Words, {"target_modules": ["embed"], "r": 8, "use_dora": True}),
    "dora_convolution": (Convolutions, {"target_modules": ["one", "two", "point"], "r": 8, "use_dora": True}),
}
# torch sums the norm over a dimension that is not the last one in an order of its own; where it cuts
# the sums of ranks above 128 depends on the processor.
ONE_ULP = {"dora_conv1d", "dora_embedding", "rank_256"}


def disturb(model: nn.Module) -> None:
    """Values that training would have left: no zeros, no ones."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name or "trainable_tokens" in name:
                change = torch.randn_like(parameter, dtype=torch.float32) * 0.05
                scaled = parameter.float() * (1 + change) + (0 if "magnitude" in name else change)
                parameter.copy_(scaled.to(parameter.dtype))


def make(folder: pathlib.Path, kind: str, dtype: str, safe: bool, **settings: object) -> None:
    """base.safetensors, adapter/ and merged.safetensors, the last two by PEFT."""
    factory, arguments = KINDS[kind]
    torch.manual_seed(7)
    base = factory().to(DTYPES[dtype])
    save_file(base.state_dict(), folder / "base.safetensors", {"format": "pt"})
    model = get_peft_model(base, LoraConfig(lora_alpha=16, **{**arguments, **settings}))
    disturb(model)
    if arguments.get("bias") == "all":
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(".bias"):
                    parameter.add_(0.25)
    model.save_pretrained(folder / "adapter")
    merged = model.merge_and_unload(safe_merge=safe)
    state = {name: value.contiguous() for name, value in merged.state_dict().items()}
    save_file(state, folder / "merged.safetensors", {"format": "pt"})


def command(folder: pathlib.Path, *more: object) -> tuple:
    return (
        "verify", folder / "adapter", *more, "--base", folder / "base.safetensors",
        "--merged", folder / "merged.safetensors",
    )  # fmt: skip


def rules(envelope: dict) -> set[str]:
    """Of the errors and warnings of the 7xx group: what else is wrong is not this suite's question."""
    return {
        finding["rule"]
        for finding in envelope["findings"]
        if finding["rule"].startswith("LV7") and finding["severity"] != "note"
    }


def verify(context: Context, folder: pathlib.Path) -> dict:
    """The report of a merge that nothing may be said against."""
    envelope = context.envelope(*command(folder))
    assert_equal(f"{folder.name} findings", rules(envelope), set())
    merged = envelope["result"]["adapters"][0]["merged"]
    assert_equal(f"{folder.name} is reproduced", merged["reproduced"], True)
    return merged


def proofs(merged: dict) -> dict[str, int]:
    counts: dict[str, int] = {}
    for tensor in merged["tensors"]:
        counts[tensor["proof"]] = counts.get(tensor["proof"], 0) + 1
    return counts


def check_kind(context: Context, kind: str) -> None:
    for dtype in DTYPES:
        for safe in (False, True):
            folder = context.folder / f"{kind}-{dtype}-{'safe' if safe else 'plain'}"
            folder.mkdir()
            make(folder, kind, dtype, safe)
            merged = verify(context, folder)
            found = proofs(merged)
            allowed = BITWISE | ({"one_ulp"} if kind in ONE_ULP else set())
            if not set(found) <= allowed:
                raise AssertionError(f"{folder.name}: proven {found}, expected {sorted(allowed)}")
            if dtype != "f32" and kind == "linear":
                expected = "safe_merge" if safe else "merge"
                assert_equal(f"{folder.name} proof", expected in found, True)
            context.note(f"{dtype}{' safe' if safe else ''}: " + ", ".join(f"{n} {p}" for p, n in found.items()))


def add_kind(kind: str) -> None:
    def run(context: Context) -> None:
        check_kind(context, kind)

    run.__name__ = f"merged_{kind}"
    case(run)


for name in KINDS:
    add_kind(name)


@case
def merged_adapter_held_in_bf16(context: Context) -> None:
    """autocast_adapter_dtype=False: the product is rounded to the adapter's dtype before the sum."""
    torch.manual_seed(7)
    base = Linears().to(torch.bfloat16)
    save_file(base.state_dict(), context.folder / "base.safetensors", {"format": "pt"})
    config = LoraConfig(lora_alpha=16, r=8, target_modules=["up", "down"])
    model = get_peft_model(copy.deepcopy(base), config)
    disturb(model)
    model.save_pretrained(context.folder / "adapter")
    held = PeftModel.from_pretrained(base, context.folder / "adapter", autocast_adapter_dtype=False)
    save_file(held.merge_and_unload().state_dict(), context.folder / "merged.safetensors", {"format": "pt"})
    merged = verify(context, context.folder)
    assert_equal("proofs", proofs(merged), {"held_low": 2, "unchanged": 4})


@case
def merged_in_another_dtype(context: Context) -> None:
    """An F32 base merged in F32 and saved as BF16, and loaded as BF16 first: both are recognised."""
    for order in ("after", "before"):
        folder = context.folder / order
        folder.mkdir()
        torch.manual_seed(7)
        base = Linears()
        save_file(base.state_dict(), folder / "base.safetensors", {"format": "pt"})
        if order == "before":
            base = base.to(torch.bfloat16)
        model = get_peft_model(base, LoraConfig(lora_alpha=16, r=8, target_modules=["up", "down"]))
        disturb(model)
        model.save_pretrained(folder / "adapter")
        merged = model.merge_and_unload().to(torch.bfloat16)
        save_file(merged.state_dict(), folder / "merged.safetensors", {"format": "pt"})
        report = verify(context, folder)
        assert_equal(order, proofs(report), {"merge": 2, "unchanged": 4})
        updated = [t for t in report["tensors"] if t["proof"] == "merge"]
        assert_equal("dtype of the sum", {t["compute"] for t in updated}, {"F32" if order == "after" else "BF16"})


def rewrite(path: pathlib.Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def broken(context: Context, name: str, kind: str = "linear", dtype: str = "f32") -> pathlib.Path:
    folder = context.folder / name
    folder.mkdir()
    make(folder, kind, dtype, safe=False)
    return folder


def expect(context: Context, folder: pathlib.Path, kind: str | None, *expected: str, more: tuple = ()) -> None:
    """Exit 1, these rules among the findings, and this explanation."""
    arguments = command(folder, *more)
    context.run(*arguments, exit_code=1)
    envelope = context.envelope(*arguments)
    explanations = envelope["result"]["adapters"][0]["merged"]["explanations"]
    if kind is not None:
        assert_equal(f"{folder.name} explained", [e["kind"] for e in explanations], [kind])
    for rule in expected:
        if rule not in rules(envelope):
            raise AssertionError(f"{folder.name}: findings {sorted(rules(envelope))}, expected {rule}")


def merge_again(folder: pathlib.Path, times: int, scale: float = 1.0, dtype: str = "f32") -> None:
    """PEFT's merge of the same adapter, `times` times, with its scaling changed."""
    torch.manual_seed(7)
    model = Linears().to(DTYPES[dtype])
    for _ in range(times):
        wrapped = PeftModel.from_pretrained(model, folder / "adapter")
        for module in wrapped.modules():
            if hasattr(module, "scaling") and isinstance(module.scaling, dict):
                module.scaling = {key: value * scale for key, value in module.scaling.items()}
        model = wrapped.merge_and_unload()
        for name in ("peft_config", "_peft_config"):
            if hasattr(model, name):
                delattr(model, name)
    save_file(model.state_dict(), folder / "merged.safetensors", {"format": "pt"})


@case
def merged_wrongly(context: Context) -> None:
    for dtype in DTYPES:
        for name, times, scale, kind in (
            ("not-applied", 0, 1.0, "not_applied"),
            ("twice", 2, 1.0, "applied_twice"),
            ("subtracted", 1, -1.0, "subtracted"),
            ("scale", 1, 1.5, "other_scale"),
            ("rslora", 1, 8**0.5, "rslora_ignored"),
        ):
            folder = broken(context, f"{name}-{dtype}", dtype=dtype)
            merge_again(folder, times, scale, dtype)
            expect(context, folder, kind, "LV701", "LV707")


@case
def merged_from_another_base(context: Context) -> None:
    folder = broken(context, "base")
    torch.manual_seed(8)
    model = PeftModel.from_pretrained(Linears(), folder / "adapter")
    save_file(model.merge_and_unload().state_dict(), folder / "merged.safetensors", {"format": "pt"})
    expect(context, folder, "other_base", "LV701", "LV707", "LV708")


@case
def merged_from_another_adapter(context: Context) -> None:
    folder = broken(context, "adapter")
    torch.manual_seed(7)
    base = Linears()
    torch.manual_seed(9)
    other = get_peft_model(base, LoraConfig(lora_alpha=16, r=8, target_modules=["up", "down"]))
    disturb(other)
    other.save_pretrained(folder / "other")
    save_file(other.merge_and_unload().state_dict(), folder / "merged.safetensors", {"format": "pt"})
    expect(context, folder, "other_adapter", "LV701", "LV707", more=(folder / "other",))


@case
def merged_with_one_flipped_element(context: Context) -> None:
    def flip(tensors: dict[str, torch.Tensor]) -> None:
        tensors["down.weight"].view(torch.int32)[3, 17] ^= 1 << 12

    folder = broken(context, "flip")
    rewrite(folder / "merged.safetensors", flip)
    merged = context.run(*command(folder), exit_code=1)["adapters"][0]["merged"]
    different = [t for t in merged["tensors"] if t["proof"] == "differs"]
    assert_equal("tensors", [t["tensor"] for t in different], ["down.weight"])
    assert_equal("elements", different[0]["outside"], 1)
    assert_equal("position", different[0]["first_outside"], 3 * 96 + 17)


@case
def merged_without_what_the_adapter_saved(context: Context) -> None:
    for kind, name in (("saved_head", "head.weight"), ("bias_all", "down.bias"), ("tokens", "embed.weight")):
        folder = broken(context, kind, kind)
        base = load_file(folder / "base.safetensors")
        rewrite(folder / "merged.safetensors", lambda tensors: tensors.update({name: base[name]}))
        expect(context, folder, None, "LV704")


@case
def merged_smollm2(context: Context) -> None:
    """A real model and a rank-16 adapter on every linear layer, in F32 and BF16, plain and safe."""
    for dtype in ("f32", "bf16"):
        base = context.folder / f"base-{dtype}"
        model = open_model(context.model).to(DTYPES[dtype])
        model.config.dtype = DTYPES[dtype]
        model.save_pretrained(base)
        config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        torch.manual_seed(3)
        model = get_peft_model(model, config)
        disturb(model)
        model.save_pretrained(context.folder / f"adapter-{dtype}")
        for safe in (False, True):
            merged = copy.deepcopy(model).merge_and_unload(safe_merge=safe)
            target = context.folder / "merged"
            merged.save_pretrained(target)
            report = context.run(
                "verify", context.folder / f"adapter-{dtype}", "--base", base, "--merged", target
            )["adapters"][0]["merged"]  # fmt: skip
            expected = "safe_merge" if safe and dtype == "bf16" else "merge"
            assert_equal(f"{dtype} safe={safe}", proofs(report), {expected: 210, "unchanged": 62})
            context.note(f"{dtype}{' safe' if safe else ''}: 210 {expected}, energy kept {report['survived']:.4f}")
            shutil.rmtree(target)


@case
def merged_index_is_checked(context: Context) -> None:
    """Shards with a right index pass; a wrong total_size is named."""
    model = open_model(context.model)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    disturb(model)
    model.save_pretrained(context.folder / "adapter")
    model.merge_and_unload().save_pretrained(context.folder / "merged", max_shard_size="200MB")
    arguments = ("verify", "adapter", "--base", context.model, "--merged", "merged")
    context.run(*arguments)
    index = context.folder / "merged" / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    document["metadata"]["total_size"] = len(document["weight_map"])
    index.write_text(json.dumps(document))
    context.run(*arguments, exit_code=1)
    assert_equal("findings", rules(context.envelope(*arguments)), {"LV705"})


@case
def merged_by_lora(context: Context) -> None:
    """`lora merge` writes the bits of PEFT's merge, of both roundings."""
    equal = 0
    for kind in ("linear", "dora", "embedding", "lora_bias", "gpt2_conv1d", "convolution", "attention", "experts", "saved_head"):
        for safe in (False, True):
            folder = context.folder / f"{kind}-{safe}"
            folder.mkdir()
            make(folder, kind, "bf16", safe)
            flags = ("--compat", "safe_merge") if safe else ()
            context.run(
                "merge", folder / "adapter", "--base", folder / "base.safetensors", "-o", folder / "out", *flags
            )
            ours = load_file(folder / "out" / "base.safetensors")
            theirs = load_file(folder / "merged.safetensors")
            assert_equal(f"{folder.name} names", sorted(ours), sorted(theirs))
            for name, value in theirs.items():
                if not torch.equal(ours[name].view(torch.uint8), value.view(torch.uint8)):
                    changed = (ours[name] != value).sum().item()
                    raise AssertionError(f"{folder.name} {name}: {changed} of {value.numel()} elements differ")
                equal += 1
    context.note(f"{equal} tensors, bit for bit")

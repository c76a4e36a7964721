"""Merges made by the real PEFT, taken apart by `lora unmerge`."""

from __future__ import annotations

import json

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from parity.comparison import LOGITS_TOLERANCE, open_model, peft_logits
from parity.harness import Context, assert_close, assert_equal, assert_small, case
from parity.merged import DTYPES, KINDS, disturb
from parity.networks import make_llama

# What only adds to the weights. DoRA and saved modules are refused by name.
ADDED = ("linear", "rank_1", "rslora", "patterns", "lora_bias", "gpt2_conv1d", "embedding", "convolution", "attention")


def steps_of(values: torch.Tensor) -> torch.Tensor:
    """The distance of neighbouring numbers at each value, in float64."""
    info = torch.finfo(values.dtype)
    magnitude = values.double().abs().clamp(min=info.smallest_normal)
    return torch.exp2(torch.floor(torch.log2(magnitude))) * info.eps


def plain(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The base's weights by the base's names, wrapped as they are."""
    state = model.get_base_model().state_dict()
    return {name.replace(".base_layer", ""): value.clone() for name, value in state.items() if "lora_" not in name}


def check(context: Context, kind: str, dtype: str) -> tuple[int, int, int]:
    """Elements, and how many of them ours and PEFT's results differ in from the base."""
    factory, arguments = KINDS[kind]
    folder = context.folder / f"{kind}-{dtype}"
    folder.mkdir()
    torch.manual_seed(7)
    base = factory().to(DTYPES[dtype])
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model = get_peft_model(base, LoraConfig(lora_alpha=16, **arguments))
    disturb(model)
    model.save_pretrained(folder / "adapter")
    model.merge_adapter()
    save_file(plain(model), folder / "merged.safetensors", {"format": "pt"})
    model.unmerge_adapter()
    theirs = plain(model)

    command = ("unmerge", folder / "merged.safetensors", "--adapter", folder / "adapter", "-o", folder / "again")
    refused = context.envelope(*command)
    assert_equal(f"{folder.name} unproven", (refused["error"]["exit_code"], (folder / "again").exists()), (4, False))
    report = context.run(*command, "--allow-inexact")
    ours = load_file(folder / "again" / "merged.safetensors")
    assert_equal(f"{folder.name} names", sorted(ours), sorted(before))
    touched = {tensor["tensor"]: tensor for tensor in report["tensors"]}
    elements = different = different_in_peft = 0
    for name, value in before.items():
        if name not in touched:
            assert_equal(f"{folder.name} {name} untouched", torch.equal(ours[name], value), True)
            continue
        distance = ((ours[name].double() - value.double()).abs() / steps_of(ours[name])).max().item()
        assert_small(f"{folder.name} {name} in ulp", distance, touched[name]["worst_ulps"])
        missed = (ours[name] != value).sum().item()
        if dtype == "f32":
            assert_equal(f"{folder.name} {name} as PEFT's", torch.equal(ours[name], theirs[name]), True)
        elements += value.numel()
        different += missed
        different_in_peft += (theirs[name] != value).sum().item()
    return elements, different, different_in_peft


@case
def unmerged_within_the_stated_bound(context: Context) -> None:
    """Every element of the base within the ulp that are stated for its tensor; in f32 PEFT's own bits."""
    for dtype in DTYPES:
        counts = [sum(column) for column in zip(*(check(context, kind, dtype) for kind in ADDED))]
        context.note("{}: {} elements, {} not the base's, {} of PEFT's".format(dtype, *counts))
        if counts[1] > counts[2]:
            raise AssertionError(f"{dtype}: {counts[1]} elements are not the base's, only {counts[2]} of PEFT's")


@case
def adapters_of_a_tied_embedding(context: Context) -> None:
    """PEFT saves the embedding of the base beside its factors: two such adapters together, merged and taken out."""
    base = make_llama(context.root, context.folder / "base", tie_word_embeddings=True)
    adapters = [context.folder / name for name in ("one", "two")]
    for seed, folder in enumerate(adapters):
        torch.manual_seed(seed)
        config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["embed_tokens"], init_lora_weights=False)
        get_peft_model(open_model(base), config).save_pretrained(folder)
    copies = [name for name in load_file(adapters[0] / "adapter_model.safetensors") if "base_layer" in name]
    assert_equal("copies of the base", len(copies), 1)
    model = PeftModel.from_pretrained(open_model(base), adapters[0], adapter_name="one")
    model.load_adapter(adapters[1], adapter_name="two")
    model.base_model.set_adapter(["one", "two"])
    inputs = {"input_ids": (torch.arange(24).view(2, 12) * 37 + 5) % 512}
    theirs = peft_logits(model, inputs)
    save_file(inputs, context.folder / "input.safetensors")
    context.run("load", *adapters, "--base", base, "--input", "input.safetensors", "--output", "output.safetensors")
    ours = load_file(context.folder / "output.safetensors")["logits"]
    assert_close("both loaded", ours, theirs, LOGITS_TOLERANCE)
    merged, again = context.folder / "merged", context.folder / "again"
    context.run("merge", *adapters, "--base", base, "-o", merged)
    assert_close("both merged", peft_logits(open_model(merged), inputs), theirs, LOGITS_TOLERANCE)
    report = context.run("unmerge", merged, "--adapter", adapters[0], "--adapter", adapters[1], "-o", again)
    assert_equal("exact", report["exact"], True)
    assert_equal("tied", json.loads((again / "config.json").read_text())["tie_word_embeddings"], True)
    restored, original = (load_file(folder / "model.safetensors") for folder in (again, base))
    assert_equal("names", sorted(restored), sorted(original))
    for name, value in original.items():
        assert_equal(name, torch.equal(restored[name], value), True)

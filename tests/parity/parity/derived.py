"""Adapters made from adapters (resize, scale, convert), loaded by the real PEFT; PEFT's own conversion."""

from __future__ import annotations

import copy
import json
import os
import pathlib

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from parity.harness import Context, assert_close, assert_equal, case


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(48, 96)
        self.down = nn.Linear(96, 40)
        self.square = Conv1D(64, 40)
        self.embed = nn.Embedding(70, 32)
        self.convolution = nn.Conv2d(16, 32, 3)


TARGETS = ["up", "down", "square", "embed", "convolution"]
SETTINGS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"up": 20, "embed": 9}, "alpha_pattern": {"down": 3}},
    "bias": {"lora_bias": True, "target_modules": ["up", "down", "convolution"]},
    "dora": {"use_dora": True},
}


def make(folder: pathlib.Path, settings: dict[str, object]) -> tuple[nn.Module, PeftModel]:
    """A base and an adapter of rank 12 on it, whose directions fall in strength."""
    base = Layers()
    model = get_peft_model(copy.deepcopy(base), LoraConfig(r=12, lora_alpha=18, **{"target_modules": TARGETS, **settings}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.1)
            if "lora_B" in name or "lora_embedding_B" in name:
                if parameter.dim() > 1:
                    fall = 0.7 ** torch.arange(parameter.shape[1])
                    parameter.mul_(fall.reshape(1, -1, *[1] * (parameter.dim() - 2)))
    model.save_pretrained(folder)
    return base, model


def reload(base: nn.Module, folder: pathlib.Path) -> PeftModel:
    return PeftModel.from_pretrained(copy.deepcopy(base), folder)


def deltas(model: PeftModel) -> dict[str, torch.Tensor]:
    layers = model.base_model.model
    return {n: getattr(layers, n).get_delta_weight("default").detach() for n in TARGETS if hasattr(getattr(layers, n), "lora_A")}


def truncated(delta: torch.Tensor, rank: int) -> torch.Tensor:
    matrix = delta.double().reshape(delta.shape[0], -1)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ v[:rank]).reshape(delta.shape)


@case
def resize_is_the_truncated_svd_in_peft(context: Context) -> None:
    """PEFT's delta of the resized adapter against torch's SVD of its delta before, for every setting."""
    for name, settings in SETTINGS.items():
        folder = context.folder / name
        base, model = make(folder, settings)
        for request in (["--rank", 5], ["--energy", 0.9], ["--budget", 9000]):
            small = context.folder / f"{name}-small"
            result = context.run("resize", folder, *request, "-o", small, "--force")
            ranks = {m["module"]: m["rank"] for m in result["modules"]}
            before, after = deltas(model), deltas(reload(base, small))
            assert_equal("modules", sorted(before), sorted(after))
            for module, delta in before.items():
                wanted = truncated(delta, ranks[module])
                assert_close(f"{name} {module}", after[module], wanted, 3e-6 * delta.abs().max().item())
            if request[0] == "--budget":
                assert (small / "adapter_model.safetensors").stat().st_size <= 9000, "the budget was exceeded"


@case
def resize_up_changes_nothing_in_peft(context: Context) -> None:
    """Padded with zeros, the adapter gives the same deltas and trains on from there."""
    for name, settings in SETTINGS.items():
        base, model = make(context.folder / name, settings)
        context.run("resize", context.folder / name, "--rank", 32, "-o", context.folder / f"{name}-wide")
        wide = reload(base, context.folder / f"{name}-wide")
        for module, delta in deltas(model).items():
            assert_close(f"{name} {module}", deltas(wide)[module], delta, 1e-7 * delta.abs().max().item())


@case
def scale_in_peft(context: Context) -> None:
    """Multiplied, set, folded and unfolded adapters give the deltas that they say."""
    for name, settings in SETTINGS.items():
        base, model = make(context.folder / name, settings)
        before = deltas(model)
        scaling = {n: getattr(model.base_model.model, n).scaling["default"] for n in before}
        for request, factor in (
            (["--mul", 0.3], lambda n: 0.3),
            (["--set", 0.25], lambda n: 0.25 / scaling[n]),
            (["--fold"], lambda n: 1),
            (["--unfold", 7], lambda n: 1),
        ):
            out = context.folder / f"{name}-scaled"
            context.run("scale", context.folder / name, *request, "-o", out, "--force")
            for module, delta in deltas(reload(base, out)).items():
                wanted = before[module] * factor(module)
                assert_close(f"{name} {request[0]} {module}", delta, wanted, 1e-6 * wanted.abs().max().item())


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(24, 40)
        self.down = nn.Linear(40, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


def train(model: nn.Module, x: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()


def convert(context: Context, init: str, **settings: object) -> None:
    root = context.folder / init
    base = Chain()
    save = {k: v.clone() for k, v in base.state_dict().items()}
    x = torch.randn(16, 24)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["up", "down"], init_lora_weights=init, **settings)
    model = get_peft_model(copy.deepcopy(base), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(root / "init")
    train(model, x)
    model.eval()
    with torch.no_grad():
        trained = model(x)
    model.peft_config["default"].init_lora_weights = init
    model.save_pretrained(root / "trained")
    model.save_pretrained(root / "theirs", path_initial_model_for_weight_conversion=os.fspath(root / "init"))

    context.run("convert", root / "trained", "--init-adapter", root / "init", "-o", root / "ours")
    ours, theirs = (load_file(root / n / "adapter_model.safetensors") for n in ("ours", "theirs"))
    assert_equal("tensors", sorted(ours), sorted(theirs))
    for key, tensor in theirs.items():
        assert_close(f"{init} {key}", ours[key], tensor, 0)
    written, expected = (json.loads((root / n / "adapter_config.json").read_text()) for n in ("ours", "theirs"))
    for config_ in (written, expected):
        config_["target_modules"] = sorted(config_["target_modules"])
    assert_equal("configuration", written, expected)

    save_file(save, root / "base.safetensors", {"format": "pt"})
    context.run("convert", root / "trained", "--base", root / "base.safetensors", "-o", root / "from-base")
    for name in ("ours", "from-base"):
        with torch.no_grad():
            outputs = reload(base, root / name).eval()(x)
        assert_close(f"{init} outputs of {name}", outputs, trained, 5e-6)


@case
def convert_is_pefts_conversion(context: Context) -> None:
    """PiSSA and OLoRA adapters: tensors and configuration of PEFT's conversion, outputs of the trained model."""
    convert(context, "pissa")
    convert(context, "olora")


@case
def convert_with_rslora_is_pefts_conversion(context: Context) -> None:
    """The same with alpha over the root of the rank, where PEFT multiplies alpha by the root of two."""
    convert(context, "pissa", use_rslora=True)


@case
def convert_of_conv1d_from_the_base(context: Context) -> None:
    """PiSSA on GPT-2's transposed weights, from a base whose configuration tells them."""
    context.run("init-base", "--preset", "tiny-gpt2", "-o", context.folder / "base")
    base = AutoModelForCausalLM.from_pretrained(context.folder / "base")
    ids = torch.arange(12).reshape(2, 6)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["c_attn", "c_proj"], init_lora_weights="pissa", fan_in_fan_out=True)
    model = get_peft_model(copy.deepcopy(base), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape) * 0.02)
        trained = model(ids).logits
        plain = base(ids).logits
    model.save_pretrained(context.folder / "trained")
    context.run("convert", context.folder / "trained", "--base", context.folder / "base", "-o", context.folder / "plain")
    with torch.no_grad():
        outputs = reload(base, context.folder / "plain").eval()(ids).logits
    assert (trained - plain).abs().max() > 1e-2, "the adapter changes nothing"
    assert_close("logits", outputs, trained, 2e-5)

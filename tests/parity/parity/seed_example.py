"""The smallest lifecycle: a 10-20-2 network whose base is a `torch.save`d state dict."""

from __future__ import annotations

import json

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from parity.harness import Context, assert_close, case
from parity.networks import Chain, Mlp


def load_outputs(context: Context, adapter: object, base: object, x: torch.Tensor) -> torch.Tensor:
    save_file({"x": x}, context.folder / "input.safetensors")
    context.run(
        "load", adapter, "--base", base, "--input", "input.safetensors", "--output", "output.safetensors", "--force"
    )
    return load_file(context.folder / "output.safetensors")["output"]


def train_with_peft(model: torch.nn.Module, steps: int) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        x = torch.randn(32, 10)
        loss = torch.nn.functional.cross_entropy(model(x), (x.sum(1) > 0).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def check_peft_adapter(context: Context, **settings: object) -> None:
    base = Mlp()
    torch.save(base.state_dict(), context.folder / "base_model.pth")
    config = LoraConfig(**{"target_modules": ["fc1", "fc2"], **settings})
    model = get_peft_model(base, config)
    train_with_peft(model, 20)
    model.eval()
    model.save_pretrained(context.folder / "adapter")
    x = torch.randn(5, 10)
    with torch.no_grad():
        theirs = model(x)
    ours = load_outputs(context, "adapter", "base_model.pth", x)
    context.note(f"output differs by {assert_close('output', ours, theirs, 1e-6):.1e}")


@case
def seed_example_peft_adapter_on_pth_base(context: Context) -> None:
    check_peft_adapter(context)


@case
def seed_example_rslora_and_patterns(context: Context) -> None:
    check_peft_adapter(
        context, r=4, lora_alpha=6, use_rslora=True, rank_pattern={"fc2": 2}, alpha_pattern={"fc1": 3}
    )


@case
def seed_example_biases_all(context: Context) -> None:
    check_peft_adapter(context, bias="all", r=3)


@case
def seed_example_biases_lora_only(context: Context) -> None:
    check_peft_adapter(context, target_modules=["fc1"], bias="lora_only", r=3)


@case
def seed_example_module_to_save(context: Context) -> None:
    check_peft_adapter(context, target_modules=["fc1"], modules_to_save=["fc2"], r=2)


@case
def seed_example_pickled_adapter(context: Context) -> None:
    base = Mlp()
    torch.save(base.state_dict(), context.folder / "base_model.pth")
    model = get_peft_model(base, LoraConfig(target_modules=["fc1", "fc2"], init_lora_weights=False))
    model.save_pretrained(context.folder / "adapter", safe_serialization=False)
    x = torch.randn(5, 10)
    with torch.no_grad():
        theirs = model.eval()(x)
    ours = load_outputs(context, "adapter", "base_model.pth", x)
    context.note(f"output differs by {assert_close('output', ours, theirs, 1e-6):.1e}")


@case
def seed_example_our_adapter_in_peft(context: Context) -> None:
    context.run("init-base", "--preset", "mlp", "--container", "pth", "--seed", 3, "-o", "base")
    (weights,) = [p for p in (context.folder / "base").iterdir() if p.suffix in (".pth", ".bin", ".pt")]
    state = torch.load(weights, weights_only=True)
    points = context.root / "docs/examples/points.safetensors"
    context.run(
        "train", "--base", "base", "--data", points, "--target-modules", "all-linear", "-r", 4,
        "--steps", 30, "--lr", 1e-2, "--run-dir", "run",
    )  # fmt: skip
    context.run("save", "run", "-o", "adapter")
    x = torch.randn(5, 10)
    model = PeftModel.from_pretrained(Chain(state), context.folder / "adapter").eval()
    with torch.no_grad():
        theirs = model(x)
        bare = Chain(state)(x)
    ours = load_outputs(context, "adapter", "base", x)
    context.note(f"output differs by {assert_close('output', ours, theirs, 1e-6):.1e}")
    if (theirs - bare).abs().max() < 1e-3:
        raise AssertionError("training changed nothing that PEFT can see")


@case
def seed_example_same_losses(context: Context) -> None:
    """The same rows, initial adapter and optimizer give PEFT's losses."""
    base = Mlp()
    torch.save(base.state_dict(), context.folder / "base_model.pth")
    model = get_peft_model(base, LoraConfig(target_modules=["fc1", "fc2"], r=4, lora_alpha=8))
    model.save_pretrained(context.folder / "initial")
    points = context.root / "docs/examples/points.safetensors"
    context.run(
        "train", "--base", "base_model.pth", "--adapter", "initial", "--data", points, "--no-shuffle",
        "--batch-size", 32, "--steps", 20, "--lr", 1e-2, "--schedule", "constant", "--warmup", 0,
        "--weight-decay", 0.01, "--run-dir", "run",
    )  # fmt: skip
    data = load_file(points)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.01
    )
    theirs = []
    for step in range(20):
        rows = [(step * 32 + i) % len(data["x"]) for i in range(32)]
        loss = torch.nn.functional.cross_entropy(model(data["x"][rows]), data["y"][rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        theirs.append(loss.item())
    lines = map(json.loads, (context.folder / "run/metrics.jsonl").read_text().splitlines())
    ours = [line["loss"] for line in lines if line["type"] == "step"]
    worst = assert_close("losses", torch.tensor(ours), torch.tensor(theirs), 1e-4)
    context.note(f"20 losses differ by {worst:.1e}")

"""Several adapters at once, weights, what trains, and several adapters saved: PEFT and `lora`."""

from __future__ import annotations

import json
import pathlib

import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from parity.comparison import LOGITS_TOLERANCE, lora_logits, open_model, peft_logits
from parity.harness import Context, assert_close, assert_equal, case
from parity.networks import make_llama
from parity.repairs import KINDS
from parity.saved_files import CONFIG, assert_same_files

IDS = {"input_ids": (torch.arange(24).view(2, 12) * 37 + 5) % 512}
DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def save_one(context: Context, base: pathlib.Path, name: str, seed: int, **settings: object) -> pathlib.Path:
    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    model = get_peft_model(open_model(base), config)
    model.save_pretrained(context.folder / name, save_embedding_layers=False)
    return context.folder / name


def file_name(name: str, adapter: str = "default") -> str:
    """The name in a file of a parameter of a live model."""
    parts = name.split(".")
    if "modules_to_save" in parts:
        at = parts.index("modules_to_save")
        del parts[at : at + 2]
    if "lora_magnitude_vector" in parts:
        del parts[parts.index("lora_magnitude_vector") + 1 :]
    if adapter in parts:
        parts.remove(adapter)
    return ".".join(parts)


@case
def load_trainable_is_what_peft_trains(context: Context) -> None:
    for number, (name, settings) in enumerate(KINDS.items()):
        inner = Context(context.lora, context.model, context.root, context.folder / str(number))
        inner.folder.mkdir()
        base = make_llama(inner.root, inner.folder / "base", attention_bias="bias" in settings)
        adapter = save_one(inner, base, "adapter", 1, **settings)
        model = PeftModel.from_pretrained(open_model(base), adapter, is_trainable=True)
        theirs = sorted(
            (file_name(parameter), list(tensor.shape), DTYPES[tensor.dtype])
            for parameter, tensor in model.named_parameters()
            if tensor.requires_grad
        )
        result = inner.run("load", adapter, "--base", base, "--trainable")
        ours = sorted((p["name"], p["shape"], p["dtype"]) for p in result["trainable_list"])
        assert_equal(name, ours, theirs)
        assert_equal(f"{name}: count", result["trainable_parameters"], model.get_nb_trainable_parameters()[0])


@case
def load_weighted_adapters_together(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base")
    first = save_one(context, base, "first", 1, target_modules=["q_proj", "v_proj"], r=4)
    second = save_one(
        context, base, "second", 2, target_modules=["q_proj", "down_proj"], r=6, use_rslora=True
    )
    model = PeftModel.from_pretrained(open_model(base), first, adapter_name="first")
    model.load_adapter(second, adapter_name="second")
    model.base_model.set_adapter(["first", "second"])
    assert_close(
        "both", ours := lora_both(context, [first, second], base), peft_logits(model, IDS), LOGITS_TOLERANCE
    )
    for module in model.modules():
        if hasattr(module, "scaling") and hasattr(module, "lora_A"):
            for name, weight in (("first", 0.5), ("second", -1.25)):
                if name in module.scaling:
                    module.scaling[name] *= weight
    weighted = lora_both(context, [f"{first}@0.5", f"{second}@-1.25"], base)
    assert_close("weighted", weighted, peft_logits(model, IDS), LOGITS_TOLERANCE)
    if (weighted - ours).abs().max().item() < 100 * LOGITS_TOLERANCE:
        raise AssertionError("the weights make no difference")

    summed = open_model(base)
    state = summed.state_dict()
    for folder, weight in ((first, 0.5), (second, -1.25)):
        config = json.loads((folder / CONFIG).read_text())
        scale = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
        tensors = load_file(folder / "adapter_model.safetensors")
        for key, a in tensors.items():
            if key.endswith("lora_A.weight"):
                path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                state[path + ".weight"] += weight * scale * tensors[key.replace("lora_A", "lora_B")] @ a
    with torch.no_grad():
        assert_close("sum by hand", weighted, summed(**IDS).logits, LOGITS_TOLERANCE)


def lora_both(context: Context, adapters: list[object], base: pathlib.Path) -> torch.Tensor:
    from safetensors.torch import save_file

    save_file(IDS, context.folder / "input.safetensors")
    context.run(
        "load", *adapters, "--base", base, "--compute", "f32", "--input", "input.safetensors",
        "--output", "output.safetensors", "--force",
    )  # fmt: skip
    return load_file(context.folder / "output.safetensors")["logits"]


@case
def load_refuses_what_peft_refuses(context: Context) -> None:
    """Two adapters with the same saved module: PEFT raises, `lora` ends with 4."""
    base = make_llama(context.root, context.folder / "base")
    torch.manual_seed(5)
    folders = []
    for name in ("first", "second"):
        config = LoraConfig(
            task_type="CAUSAL_LM", init_lora_weights=False, target_modules=["q_proj"], modules_to_save=["lm_head"]
        )
        model = get_peft_model(open_model(base), config)
        with torch.no_grad():
            model.base_model.model.lm_head.modules_to_save["default"].weight.add_(torch.randn(512, 64))
        model.save_pretrained(context.folder / name)
        folders.append(context.folder / name)
    model = PeftModel.from_pretrained(open_model(base), folders[0], adapter_name="first")
    model.load_adapter(folders[1], adapter_name="second")
    try:
        model.base_model.set_adapter(["first", "second"])
        raise AssertionError("PEFT accepts two adapters with one saved module")
    except ValueError:
        pass
    context.run("load", *folders, "--base", base, exit_code=4)


@case
def save_several_adapters_as_peft_does(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base")
    model = get_peft_model(
        open_model(base), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, r=4)
    )
    model.add_adapter(
        "second",
        LoraConfig(
            task_type="CAUSAL_LM", init_lora_weights=False, r=6, target_modules=["q_proj", "up_proj"],
            modules_to_save=["lm_head"],
        ),
    )  # fmt: skip
    theirs = context.folder / "theirs"
    model.save_pretrained(theirs)
    torch.save(model.state_dict(), context.folder / "live.pth")
    configs = f"default=theirs/{CONFIG},second=theirs/second/{CONFIG}"
    context.run("save", "live.pth", "-o", "no", "--adapter-config", configs, exit_code=2)
    context.run("save", "live.pth", "-o", "ours", "--adapter-name", "all", "--adapter-config", configs)
    assert_same_files(context.folder / "ours", theirs)
    assert_same_files(context.folder / "ours/second", theirs / "second")
    context.run("save", "live.pth", "-o", "one", "--adapter-name", "second", "--adapter-config", configs)
    assert_same_files(context.folder / "one", theirs / "second")


@case
def save_model_card_like_peft(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base")
    theirs = save_one(context, base, "theirs", 1, target_modules=["q_proj"])
    context.run("save", "theirs", "-o", "ours", "--model-card", "--base", base)

    def parts(path: pathlib.Path) -> tuple[list, list[str], str]:
        text = path.read_text(encoding="utf-8")
        _, matter, body = text.split("---\n", 2)
        # The title names the adapter; PEFT leaves a name to be filled in there.
        headings = [line for line in body.splitlines() if line.startswith("##")]
        return list(yaml.safe_load(matter).items()), headings, body.rstrip().splitlines()[-1]

    ours_matter, ours_headings, ours_end = parts(context.folder / "ours/README.md")
    matter, headings, end = parts(theirs / "README.md")
    assert_equal("front matter", ours_matter, matter)
    assert_equal("headings", ours_headings, headings)
    assert_equal("last line", ours_end, end)


@case
def save_again_changes_no_byte_of_any_kind(context: Context) -> None:
    for number, settings in enumerate(KINDS.values()):
        inner = Context(context.lora, context.model, context.root, context.folder / str(number))
        inner.folder.mkdir()
        base = make_llama(inner.root, inner.folder / "base", attention_bias="bias" in settings)
        theirs = save_one(inner, base, "theirs", 1, **settings)
        inner.run("save", "theirs", "-o", "ours")
        assert_same_files(inner.folder / "ours", theirs)
        inner.run("load", "ours", "--base", base)
        inner.run("save", "ours", "-o", "again")
        assert_same_files(inner.folder / "again", theirs)

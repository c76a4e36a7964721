"""Good and broken adapters on one small base, made with the real PEFT and then damaged byte by byte.

`make_set(root, folder)` writes BASE, OTHER (another base of the same shapes) and one directory an
adapter, and returns what is known of each. The same set serves the tests of `lora verify` and the
comparison with other tools (docs/comparison.md).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import struct
from typing import Callable

import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file

from parity.comparison import open_model
from parity.networks import make_llama

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
FORMAT = {"format": "pt"}

Tensors = dict[str, torch.Tensor]


@dataclasses.dataclass
class Entry:
    name: str
    is_healthy: bool
    what: str  # one line for the table
    rules: tuple[str, ...] = ()  # findings that `lora verify` must report
    is_recorded: bool = False  # carries lora's records (made by `lora save --base`)
    base: str = "base"  # folder of the base it is checked against


@dataclasses.dataclass
class Set:
    folder: pathlib.Path
    entries: list[Entry]

    def path(self, entry: Entry) -> pathlib.Path:
        return self.folder / entry.name


def randomise(model: torch.nn.Module, seed: int) -> None:
    """What training would leave: every adapter tensor away from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                parameter.add_((0.05 * noise).to(parameter.dtype))


HEALTHY: dict[str, tuple[str, dict[str, object]]] = {
    "plain": ("q_proj, v_proj, rank 8", {}),
    "all-linear": ("every linear layer", {"target_modules": "all-linear"}),
    "regex": ("a regular expression", {"target_modules": r".*self_attn\.(q|o)_proj"}),
    "rslora": ("rank-stabilised scaling", {"use_rslora": True}),
    "dora": ("DoRA", {"use_dora": True}),
    "lora-bias": (
        "a bias on B",
        {"lora_bias": True, "target_modules": ["q_proj"], "bias": "none"},
    ),
    "patterns": (
        "rank and alpha by module",
        {"rank_pattern": {r"layers\.0\..*q_proj": 4}, "alpha_pattern": {"v_proj": 32}},
    ),
    "layers": (
        "layer 1 only",
        {"layers_to_transform": [1], "layers_pattern": "layers"},
    ),
    "saved-head": ("lm_head saved in full", {"modules_to_save": ["lm_head"]}),
    "saved-norm": ("a norm saved in full", {"modules_to_save": ["model.norm"]}),
    "tokens": ("two trainable tokens", {"trainable_token_indices": {"embed_tokens": [3, 7]}}),
    "alpha-zero-dot-five": ("a small alpha", {"lora_alpha": 0.5}),
}


def save_healthy(base: pathlib.Path, folder: pathlib.Path, seed: int, **settings: object) -> None:
    options: dict[str, object] = {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": TaskType.CAUSAL_LM,
    }
    options.update(settings)
    torch.manual_seed(seed)
    model = get_peft_model(open_model(base), LoraConfig(**options))
    randomise(model, seed)
    model.save_pretrained(folder, save_embedding_layers=False)


def edit_config(**changes: object) -> Callable[[pathlib.Path], None]:
    def apply(folder: pathlib.Path) -> None:
        document = json.loads((folder / CONFIG).read_text())
        document.update(changes)
        (folder / CONFIG).write_text(json.dumps(document, indent=2, sort_keys=True))

    return apply


def edit_tensors(change: Callable[[Tensors], Tensors | None]) -> Callable[[pathlib.Path], None]:
    def apply(folder: pathlib.Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        changed = change(tensors)
        save_file(tensors if changed is None else changed, folder / WEIGHTS, metadata=FORMAT)

    return apply


def edit_bytes(change: Callable[[bytearray], bytes | bytearray]) -> Callable[[pathlib.Path], None]:
    def apply(folder: pathlib.Path) -> None:
        (folder / WEIGHTS).write_bytes(change(bytearray((folder / WEIGHTS).read_bytes())))

    return apply


def key(layer: int, module: str, factor: str) -> str:
    return f"{PREFIX}model.layers.{layer}.self_attn.{module}.lora_{factor}.weight"


def rename(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new, 1): value for name, value in tensors.items()}


def drop(*names: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in names:
            del tensors[name]

    return change


def put(name: str, value: Callable[[Tensors], torch.Tensor]) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = value(tensors)

    return change


def zero_b(tensors: Tensors) -> None:
    for name, value in tensors.items():
        if "lora_B" in name:
            value.zero_()


def exchange(tensors: Tensors) -> None:
    first, second = key(0, "q_proj", "A"), key(1, "q_proj", "A")
    tensors[first], tensors[second] = tensors[second], tensors[first]


def shard(tensors: Tensors) -> None:
    """What rank 0 of two ranks has after FSDP2 without gathering."""
    for value in tensors.values():
        value[value.shape[0] // 2 :] = 0


def with_nan(tensors: Tensors) -> None:
    tensors[key(1, "v_proj", "B")][3, 2] = float("nan")


def flip_bit(data: bytearray) -> bytearray:
    data[-5] ^= 0x10
    return data


def repeat_name(data: bytearray) -> bytes:
    """The header names one tensor twice, with the same entry."""
    size = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + size].decode().rstrip()
    name = key(0, "q_proj", "A")
    entry = json.dumps({name: json.loads(header)[name]}, separators=(",", ":"))[1:-1]
    text = (header[:-1] + "," + entry + "}").encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data[8 + size :])


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("true",)


def as_hostile_pickle(folder: pathlib.Path) -> None:
    tensors: dict[str, object] = dict(load_file(folder / WEIGHTS))
    tensors["payload"] = Hostile()
    torch.save(tensors, folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


def link_outside(folder: pathlib.Path) -> None:
    outside = folder.parent / "elsewhere"
    outside.mkdir(exist_ok=True)
    target = outside / (folder.name + ".safetensors")
    shutil.move(folder / WEIGHTS, target)
    (folder / WEIGHTS).symlink_to(target)


# name: (what was done, adapter it starts from, damage, rules of which one at least must be reported,
#        whether lora's records are beside it)
Damage = tuple[str, str, Callable[[pathlib.Path], None], tuple[str, ...], bool]
BROKEN: dict[str, Damage] = {
    "truncated": ("the file ends early", "plain", edit_bytes(lambda d: d[:-64]), ("LV101",), False),
    "header-cut": ("half of the header", "plain", edit_bytes(lambda d: d[:200]), ("LV101",), False),
    "empty-file": ("zero bytes", "plain", edit_bytes(lambda d: b""), ("LV101",), False),
    "name-twice": ("one name twice in the header", "plain", edit_bytes(repeat_name), ("LV101", "LV304"), False),
    "bit-flipped": ("one bit of a value", "plain", edit_bytes(flip_bit), ("LV403",), True),
    "exchanged": ("A of two layers exchanged", "plain", edit_tensors(exchange), ("LV403",), True),
    "alpha-edited": ("lora_alpha 16 to 32", "plain", edit_config(lora_alpha=32), ("LV204",), True),
    "rslora-lost": ("use_rslora set to false", "rslora", edit_config(use_rslora=False), ("LV204",), True),
    "rank-edited": ("r 8 to 16", "plain", edit_config(r=16), ("LV203",), False),
    "no-targets": ("target_modules null", "plain", edit_config(target_modules=None, peft_type=None), ("LV101", "LV201"), False),
    "b-missing": ("one lora_B dropped", "plain", edit_tensors(drop(key(0, "q_proj", "B"))), ("LV303",), False),
    "module-missing": (
        "one module's tensors dropped",
        "plain",
        edit_tensors(drop(key(0, "q_proj", "A"), key(0, "q_proj", "B"))),
        ("LV302",),
        False,
    ),
    "not-targeted": ("v_proj taken out of target_modules", "plain", edit_config(target_modules=["q_proj"]), ("LV301",), False),
    "orig-mod": ("names of torch.compile", "plain", edit_tensors(rename(PREFIX, PREFIX + "_orig_mod.")), ("LV305",), False),
    "ddp-module": ("names of DDP", "plain", edit_tensors(rename(PREFIX, "module." + PREFIX)), ("LV305",), False),
    "no-prefix": ("names without base_model.model.", "plain", edit_tensors(rename(PREFIX, "")), ("LV306",), False),
    "foreign-prefix": ("thinker. in front of the module paths", "plain", edit_tensors(rename(PREFIX, PREFIX + "thinker.")), ("LV301", "LV306", "LV310"), False),
    "renamed-tree": (
        "language_model in the module paths",
        "plain",
        edit_tensors(rename("model.layers", "language_model.layers")),
        ("LV301", "LV310"),
        False,
    ),
    "overwrites-base": (
        "a base weight nobody declared",
        "plain",
        edit_tensors(put(PREFIX + "model.norm.weight", lambda t: torch.full((64,), 9.0))),
        ("LV308",),
        False,
    ),
    "nan": ("one NaN", "plain", edit_tensors(with_nan), ("LV401",), False),
    "no-effect": ("B is zero everywhere", "plain", edit_tensors(zero_b), ("LV402",), False),
    "zero-size": (
        "a tensor without elements (ZeRO-3)",
        "plain",
        edit_tensors(put(key(0, "q_proj", "A"), lambda t: torch.zeros(0))),
        ("LV104",),
        False,
    ),
    "one-shard": ("one of two FSDP shards", "plain", edit_tensors(shard), ("LV405",), False),
    "dora-magnitude-lost": (
        "DoRA without a magnitude",
        "dora",
        edit_tensors(lambda t: {k: v for k, v in t.items() if "magnitude" not in k}),
        ("LV312",),
        False,
    ),
    "dora-flag-lost": ("use_dora set to false", "dora", edit_config(use_dora=False), ("LV312",), False),
    "head-lost": (
        "modules_to_save without its tensor",
        "saved-head",
        edit_tensors(drop(PREFIX + "lm_head.weight")),
        ("LV302",),
        False,
    ),
    "pattern-dead": ("a rank_pattern that matches nothing", "plain", edit_config(rank_pattern={"^q_proj": 4}), ("LV207",), False),
    "pattern-overlap": (
        "two patterns of different alpha on one module",
        "plain",
        edit_config(alpha_pattern={"q_proj": 32, r"layers\.0\..*q_proj": 8}),
        ("LV208",),
        False,
    ),
    "target-typo": ("a target that matches nothing", "plain", edit_config(target_modules=["q_proj", "v_proj", "k_porj"]), ("LV205",), False),
    "saved-typo": ("modules_to_save that matches nothing", "plain", edit_config(modules_to_save=["lm_haed"]), ("LV206",), False),
    "unknown-math": ("a field of a newer version, not at its default", "plain", edit_config(use_qdora="yes"), ("LV202",), False),
    "pissa-unconverted": ("a PiSSA adapter as it is", "plain", edit_config(init_lora_weights="pissa"), ("LV212",), False),
    "tokens-too-many": ("token indices beyond the vocabulary", "tokens", edit_config(trainable_token_indices={"embed_tokens": [3, 100000]}), ("LV316", "LV317"), False),
    "hostile-pickle": ("a pickle that calls os.system", "plain", as_hostile_pickle, ("LV101", "LV801"), False),
    "link-outside": ("weights behind a link out of the folder", "plain", link_outside, ("LV802",), False),
}


def make_set(root: pathlib.Path, folder: pathlib.Path, save: Callable[..., object]) -> Set:
    """`save(source, base, output)` runs `lora save SOURCE --base BASE -o OUTPUT`."""
    base = make_llama(root, folder / "base")
    other = make_llama(root, folder / "other")
    state = load_file(other / "model.safetensors")
    save_file({k: v + 0.01 * torch.randn_like(v) for k, v in state.items()}, other / "model.safetensors", metadata=FORMAT)
    make_llama(root, folder / "wider", hidden_size=128)

    entries = []
    for index, (name, (what, settings)) in enumerate(HEALTHY.items()):
        save_healthy(base, folder / name, index, **settings)
        entries.append(Entry(name, True, what))
    for name in ("plain", "rslora"):
        save(folder / name, base, folder / f"{name}-recorded")
    entries.append(Entry("plain-recorded", True, "with lora's records", is_recorded=True))

    for name, (what, source, damage, rules, is_recorded) in BROKEN.items():
        shutil.copytree(folder / (f"{source}-recorded" if is_recorded else source), folder / name)
        damage(folder / name)
        entries.append(Entry(name, False, what, rules, is_recorded))
    for name, source, where, what, rules in (
        ("wrong-base", "plain-recorded", "other", "another base of the same shapes", ("LV501",)),
        ("wider-base", "plain", "wider", "a base of other shapes", ("LV309",)),
    ):
        shutil.copytree(folder / source, folder / name)
        entries.append(Entry(name, False, what, rules, source.endswith("recorded"), where))
    return Set(folder, entries)

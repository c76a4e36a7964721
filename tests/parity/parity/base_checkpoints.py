"""Base checkpoints: containers, bytes, and the lock that names them."""

from __future__ import annotations

import hashlib
import json
import pathlib
import struct

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from parity.comparison import open_model
from parity.harness import Context, assert_equal, case
from parity.networks import Mlp, make_llama

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def read_lock(directory: pathlib.Path) -> dict:
    return json.loads((directory / "base.lock.json").read_text())


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def digest_of(name: str, tensor: torch.Tensor) -> bytes:
    """docs/formats.md, written down a second time."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    data = tensor_bytes(tensor)
    extents = b"".join(struct.pack("<Q", extent) for extent in tensor.shape)
    return hashlib.sha256(
        b"lora.tensor/1\0" + text(name) + text(DTYPES[tensor.dtype]) + struct.pack("<Q", tensor.dim())
        + extents + struct.pack("<Q", len(data)) + data
    ).digest()  # fmt: skip


def root_of(state: dict[str, torch.Tensor]) -> str:
    digests = b"".join(digest_of(name, state[name]) for name in sorted(state, key=str.encode))
    return hashlib.sha256(b"lora.base/1\0" + struct.pack("<Q", len(state)) + digests).hexdigest()


def pickled_base(folder: pathlib.Path, content: object, **settings: object) -> pathlib.Path:
    """A checkpoint directory of a model that nobody knows, holding `content` as torch.save writes it."""
    folder.mkdir()
    torch.save(content, folder / "pytorch_model.bin", **settings)
    (folder / "config.json").write_text('{"model_type": "unknown-to-everyone"}')
    return folder


@case
def base_pth_is_read_by_torch(context: Context) -> None:
    for preset in ("mlp", "tiny-llama"):
        context.run("init-base", "--preset", preset, "--seed", 5, "--container", "pth", "-o", f"{preset}-pth")
        context.run("init-base", "--preset", preset, "--seed", 5, "-o", f"{preset}-st")
        (file,) = [p for p in (context.folder / f"{preset}-pth").iterdir() if p.suffix in (".pth", ".bin")]
        state = torch.load(file, weights_only=True)
        mapped = torch.load(file, weights_only=True, mmap=True)
        expected = load_file(context.folder / f"{preset}-st/model.safetensors")
        for name, tensor in expected.items():
            if not torch.equal(state[name], tensor) or not torch.equal(mapped[name], tensor):
                raise AssertionError(f"{preset}: {name} differs between the containers")
        roots = {read_lock(context.folder / f"{preset}-{kind}")["root"] for kind in ("pth", "st")}
        assert_equal(f"{preset}: number of roots", len(roots), 1)


@case
def base_safetensors_bytes(context: Context) -> None:
    """An import of a state dict writes the bytes that safetensors itself writes."""
    state = {
        "b.weight": torch.randn(3, 4),
        "a.half": torch.randn(5).half(),
        "a.brain": torch.randn(2, 2, 2).bfloat16(),
        "counts": torch.arange(7),
        "flags": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "layers.10.w": torch.randn(2),
        "layers.2.w": torch.randn(2),
        "double": torch.randn(3, dtype=torch.float64),
        "größe": torch.ones(1),
    }
    source = pickled_base(context.folder / "source", state)
    context.run("init-base", "--from", source, "-o", "ours")
    save_file(state, context.folder / "theirs.safetensors", metadata={"format": "pt"})
    if (context.folder / "ours/model.safetensors").read_bytes() != (
        context.folder / "theirs.safetensors"
    ).read_bytes():
        raise AssertionError("model.safetensors differs from what safetensors writes")
    assert_equal("root", read_lock(context.folder / "ours")["root"], root_of(state))


@case
def base_views_and_parameters_in_pth(context: Context) -> None:
    """Strided views, shared storages, Parameters and nesting come in as the tensors they stand for."""
    big = torch.randn(6, 8)
    state = {
        "transposed": big.t(),
        "slice": big[1:3, 2:5],
        "step": big[::2],
        "parameter": torch.nn.Parameter(torch.randn(4)),
    }
    sources = {
        "nested": pickled_base(context.folder / "a", {"epoch": 3, "state_dict": state}),
        "legacy": pickled_base(context.folder / "b", state, _use_new_zipfile_serialization=False),
    }
    for name, source in sources.items():
        context.run("init-base", "--from", source, "-o", name)
        ours = load_file(context.folder / name / "model.safetensors")
        assert_equal("names", sorted(ours), sorted(state))
        for key, tensor in state.items():
            if not torch.equal(ours[key], tensor):
                raise AssertionError(f"{name}: {key} differs")


@case
def base_lock_root_of_a_tied_llama(context: Context) -> None:
    """.pth, one file and shards have one root, which an independent computation confirms."""
    base = make_llama(context.root, context.folder / "base", tie_word_embeddings=True)
    model = open_model(base)
    model.save_pretrained(context.folder / "shards", max_shard_size="60KB")
    if not (context.folder / "shards/model.safetensors.index.json").exists():
        raise AssertionError("the test model was not sharded")
    pickled = context.folder / "pickled"
    pickled.mkdir()
    torch.save(model.state_dict(), pickled / "pytorch_model.bin")
    (pickled / "config.json").write_bytes((base / "config.json").read_bytes())

    sources = {"one": base, "shards": context.folder / "shards", "pickled": pickled}
    for name, source in sources.items():
        context.run("init-base", "--from", source, "-o", f"from-{name}")
    context.run("init-base", "--from", base, "--max-shard-size", "60KB", "-o", "from-resharded")
    roots = {n: read_lock(context.folder / f"from-{n}")["root"] for n in [*sources, "resharded"]}
    with safe_open(base / "model.safetensors", "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}
    assert_equal("roots", roots, dict.fromkeys(roots, root_of(state)))
    again = open_model(context.folder / "from-resharded")
    for name, tensor in model.state_dict().items():
        if not torch.equal(again.state_dict()[name], tensor):
            raise AssertionError(f"transformers reads {name} differently from our shards")


@case
def base_lock_root_of_smollm2(context: Context) -> None:
    context.run("init-base", "--from", context.model, "-o", "base")
    with safe_open(context.model / "model.safetensors", "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}
    assert_equal("root", read_lock(context.folder / "base")["root"], root_of(state))
    same = (context.folder / "base/model.safetensors").read_bytes() == (
        context.model / "model.safetensors"
    ).read_bytes()
    if not same:
        raise AssertionError("the imported weights are not the bytes that transformers wrote")


@case
def base_dtype_conversion(context: Context) -> None:
    """Rounding to nearest even, as torch rounds."""
    state = Mlp().state_dict()
    state["fc1.weight"].view(-1)[:4] = torch.tensor([1.00390625, 1.01171875, 65519.0, -1e-7])
    torch.save(state, context.folder / "state.pth")
    for dtype, spelling in ((torch.bfloat16, "bf16"), (torch.float16, "f16")):
        context.run("init-base", "--from", "state.pth", "--dtype", spelling, "-o", spelling)
        ours = load_file(context.folder / spelling / "model.safetensors")
        for name, tensor in state.items():
            if not torch.equal(ours[name], tensor.to(dtype)):
                raise AssertionError(f"{spelling}: {name} is rounded differently")


@case
def base_presets_load_in_transformers(context: Context) -> None:
    context.run("init-base", "--preset", "tiny-llama", "--seed", 1, "-o", "base")
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(context.folder / "base", output_loading_info=True)
    assert_equal("missing keys", sorted(report["missing_keys"]), [])
    assert_equal("unexpected keys", sorted(report["unexpected_keys"]), [])
    logits = model(input_ids=torch.randint(0, model.config.vocab_size, (1, 8))).logits
    if not torch.isfinite(logits).all() or logits.std() < 1e-4:
        raise AssertionError("the preset's logits are not those of a usable random model")

"""`lora combine` against PEFT's add_weighted_adapter: every type, with the masks of DARE fixed."""

from __future__ import annotations

import contextlib
import pathlib
import warnings
from collections.abc import Iterator

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from peft.utils import merge_utils

from parity.adapter_set import randomise
from parity.comparison import lora_logits, open_model, peft_logits
from parity.harness import Context, assert_close, case
from parity.networks import make_llama

SEED = 3
DENSITY = 0.6
TYPES = [
    "cat", "svd", "linear", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties",
    "dare_ties_svd", "magnitude_prune", "magnitude_prune_svd",
]  # fmt: skip
# Logits of about 1; both sides multiply f32 factors, ours of sums in f64.
TOLERANCE = 5e-5


def philox(seed: int, stream: int, blocks: int) -> numpy.ndarray:
    """Philox 4x32-10 of lora/base/random.h: the four words of blocks [0, blocks), one after another."""
    low = numpy.uint64(0xFFFFFFFF)
    index = numpy.arange(blocks, dtype=numpy.uint64)
    words = [index & low, index >> numpy.uint64(32)]
    words += [numpy.full(blocks, (stream >> shift) & 0xFFFFFFFF, dtype=numpy.uint64) for shift in (0, 32)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        one, two = numpy.uint64(0xD2511F53) * words[0], numpy.uint64(0xCD9E8D57) * words[2]
        words = [
            (two >> numpy.uint64(32)) ^ words[1] ^ numpy.uint64(key[0]), two & low,
            (one >> numpy.uint64(32)) ^ words[3] ^ numpy.uint64(key[1]), one & low,
        ]  # fmt: skip
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return numpy.stack(words, axis=1).reshape(-1)


def stream_of(name: str) -> int:
    """FNV-1a."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def mask(shape: torch.Size, adapter: int, matrix: str) -> torch.Tensor:
    count = shape.numel()
    words = philox(SEED, stream_of(f"combine/{adapter}/{matrix}"), (count + 3) // 4)[:count]
    return torch.from_numpy(words < int(DENSITY * 2**32)).to(torch.float32).reshape(shape)


@contextlib.contextmanager
def fixed_masks(model: PeftModel, adapters: int, on_updates: bool) -> Iterator[None]:
    """In PEFT's order: modules as they are named, in each all A and then all B, or all updates."""
    prefix = "base_model.model."
    paths = [name.removeprefix(prefix) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    sides = [""] if on_updates else [".lora_A", ".lora_B"]
    order = iter([(i, path + side) for path in paths for side in sides for i in range(adapters)])

    def pruned(tensor: torch.Tensor, density: float, rescale: bool) -> torch.Tensor:
        kept = tensor * mask(tensor.shape, *next(order))
        return kept / density if rescale else kept

    original = merge_utils.random_pruning
    merge_utils.random_pruning = pruned
    try:
        yield
    finally:
        merge_utils.random_pruning = original
    assert next(order, None) is None


def make_adapters(base: pathlib.Path, folder: pathlib.Path, settings: list[dict]) -> list[pathlib.Path]:
    paths = []
    for number, one in enumerate(settings):
        torch.manual_seed(number)
        config = LoraConfig(**{"target_modules": "all-linear", "task_type": "CAUSAL_LM", **one})
        model = get_peft_model(open_model(base), config)
        randomise(model, number)
        paths.append(folder / f"adapter-{number}")
        model.save_pretrained(paths[-1])
    return paths


def compare(context: Context, base: pathlib.Path, settings: list[dict], types: list[str], **options: object) -> None:
    weights = [0.7, -0.4, 1.2][: len(settings)]
    adapters = make_adapters(base, context.folder, settings)
    model = PeftModel.from_pretrained(open_model(base), adapters[0], adapter_name="0")
    names = [str(number) for number in range(len(adapters))]
    for name, path in list(zip(names, adapters))[1:]:
        model.load_adapter(path, adapter_name=name)
    ids = torch.arange(24).reshape(2, 12) * 7 % 200
    inputs = {"input_ids": ids}
    with torch.no_grad():
        plain = open_model(base)(**inputs).logits
    for kind in types:
        is_dare = kind.startswith("dare")
        density = None if kind in ("cat", "svd", "linear") else DENSITY
        masks = fixed_masks(model, len(adapters), kind.endswith("_svd")) if is_dare else contextlib.nullcontext()
        with masks, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.add_weighted_adapter(
                names, weights, kind, combination_type=kind, density=density, svd_rank=options.get("rank")
            )
        model.set_adapter(kind)
        theirs = peft_logits(model, inputs)
        flags = ["--density", density] if density else []
        if "compat" in options:
            flags += ["--peft-compat", options["compat"]]
        if "rank" in options and kind.endswith("svd"):
            flags += ["--rank", options["rank"]]
        weighted = [f"{path}@{weight}" for path, weight in zip(adapters, weights)]
        context.run("combine", *weighted, "--method", kind, "--seed", SEED, *flags, "-o", kind)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # missing or unexpected keys
            loaded = PeftModel.from_pretrained(open_model(base), context.folder / kind)
        what = f"{kind} of {len(adapters)}"
        assert (theirs - plain).abs().max() > 100 * TOLERANCE, f"{what} does nothing"
        assert_close(f"{what}, loaded by PEFT", peft_logits(loaded, inputs), theirs, TOLERANCE)
        assert_close(f"{what}, loaded by lora", lora_logits(context, kind, base, inputs), theirs, TOLERANCE)


@case
def combine_like_peft(context: Context) -> None:
    """every type of add_weighted_adapter, three adapters of one rank and different scalings, one weight negative"""
    base = make_llama(context.root, context.folder / "base")
    settings = [{"r": 8, "lora_alpha": 16}, {"r": 8, "lora_alpha": 4}, {"r": 8, "lora_alpha": 12}]
    compare(context, base, settings, TYPES, compat="0.21.2")


@case
def combine_unequal_ranks(context: Context) -> None:
    """cat and every svd type of unequal ranks, scalings and patterns: the default is PEFT 0.21.2's number"""
    base = make_llama(context.root, context.folder / "base")
    settings = [
        {"r": 8, "lora_alpha": 16, "rank_pattern": {"q_proj": 3}},
        {"r": 4, "lora_alpha": 12, "alpha_pattern": {"v_proj": 2}},
    ]
    compare(context, base, settings, ["cat", "svd", "magnitude_prune_svd", "dare_linear_svd"], rank=6)


@case
def combine_rslora_like_peft(context: Context) -> None:
    """use_rslora stays in PEFT's result and makes it sqrt(r) too strong; --peft-compat does the same"""
    base = make_llama(context.root, context.folder / "base")
    settings = [{"r": 8, "lora_alpha": 4, "use_rslora": True}, {"r": 8, "lora_alpha": 2, "use_rslora": True}]
    compare(context, base, settings, ["cat", "linear"], compat="0.21.2")

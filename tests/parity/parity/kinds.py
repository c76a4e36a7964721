"""Every kind of adapter that `lora train` starts by itself, against PEFT on the same configuration.

PEFT makes the adapter's object from the configuration that `lora` wrote and takes the first values from
the run, so both train from the same numbers where they are drawn, and from the same formulas where they are
worked out of the base's weights.
"""

from __future__ import annotations

import json
import pathlib

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoTokenizer

from parity.comparison import compare_training, lora_logits, open_model, peft_logits
from parity.families import inputs_of, make_gpt2
from parity.harness import Context, assert_close, assert_equal, case
from parity.networks import corpus, make_llama

LOADED_TOLERANCE = 1e-4

# name: (shape of the base, flags of `lora train`, fields of PEFT's configuration)
Kind = tuple[dict, list[str], dict]
LLAMA: dict[str, Kind] = {
    "rslora_patterns": (
        {}, ["--rslora", "--rank-pattern", "o_proj=3", "--alpha-pattern", "layers.1.mlp.up_proj=5",
             "--target-modules", "q_proj,o_proj,up_proj"],
        dict(use_rslora=True, rank_pattern={"o_proj": 3}, alpha_pattern={"layers.1.mlp.up_proj": 5},
             target_modules=["q_proj", "o_proj", "up_proj"]),
    ),
    "dora": ({}, ["--dora", "--target-modules", "all-linear"], dict(use_dora=True, target_modules="all-linear")),
    "dora_embedding": (
        {}, ["--dora", "--target-modules", "embed_tokens,v_proj"],
        dict(use_dora=True, target_modules=["embed_tokens", "v_proj"]),
    ),
    "lora_bias": (
        {"attention_bias": True}, ["--lora-bias", "--target-modules", "q_proj,down_proj"],
        dict(lora_bias=True, target_modules=["q_proj", "down_proj"]),
    ),
    "bias_all": (
        {"attention_bias": True, "mlp_bias": True}, ["--bias", "all", "--target-modules", "q_proj"],
        dict(bias="all", target_modules=["q_proj"]),
    ),
    "bias_lora_only": (
        {"attention_bias": True, "mlp_bias": True}, ["--bias", "lora_only", "--target-modules", "q_proj,up_proj"],
        dict(bias="lora_only", target_modules=["q_proj", "up_proj"]),
    ),
    "embedding": (
        {}, ["--target-modules", "embed_tokens,q_proj"], dict(target_modules=["embed_tokens", "q_proj"])
    ),
    "saved_head": (
        {}, ["--target-modules", "q_proj", "--modules-to-save", "lm_head,norm"],
        dict(target_modules=["q_proj"], modules_to_save=["lm_head", "norm"]),
    ),
    "saved_tied_head": (
        {"tie_word_embeddings": True}, ["--target-modules", "q_proj", "--modules-to-save", "lm_head"],
        dict(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    ),
    "saved_tied_embedding": (
        {"tie_word_embeddings": True}, ["--target-modules", "q_proj", "--modules-to-save", "embed_tokens"],
        dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    ),
    "saved_tied_both": (
        {"tie_word_embeddings": True}, ["--target-modules", "q_proj", "--modules-to-save", "embed_tokens,lm_head"],
        dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    ),
    "tied_head": (
        {"tie_word_embeddings": True}, ["--target-modules", "embed_tokens,lm_head"],
        dict(target_modules=["embed_tokens", "lm_head"]),
    ),
    "tokens": (
        {}, ["--target-modules", "q_proj", "--trainable-tokens", "5,17,300"],
        dict(target_modules=["q_proj"], trainable_token_indices=[5, 17, 300]),
    ),
    "tokens_tied": (
        {"tie_word_embeddings": True}, ["--target-modules", "q_proj", "--trainable-tokens", "5,17,300"],
        dict(target_modules=["q_proj"], trainable_token_indices=[5, 17, 300]),
    ),
    "gaussian": (
        {}, ["--target-modules", "q_proj", "--init", "gaussian"],
        dict(target_modules=["q_proj"], init_lora_weights="gaussian"),
    ),
    "orthogonal": (
        {}, ["--target-modules", "q_proj,up_proj", "--init", "orthogonal"],
        dict(target_modules=["q_proj", "up_proj"], init_lora_weights="orthogonal"),
    ),
    "pissa": (
        {}, ["--target-modules", "all-linear", "--init", "pissa"],
        dict(target_modules="all-linear", init_lora_weights="pissa"),
    ),
    "pissa_rslora_patterns": (
        {}, ["--target-modules", "q_proj,up_proj", "--init", "pissa", "--rslora", "--rank-pattern", "up_proj=5"],
        dict(target_modules=["q_proj", "up_proj"], init_lora_weights="pissa", use_rslora=True,
             rank_pattern={"up_proj": 5}),
    ),
    "pissa_dora": (
        {}, ["--target-modules", "q_proj,down_proj", "--init", "pissa", "--dora"],
        dict(target_modules=["q_proj", "down_proj"], init_lora_weights="pissa", use_dora=True),
    ),
    "olora": (
        {}, ["--target-modules", "all-linear", "--init", "olora"],
        dict(target_modules="all-linear", init_lora_weights="olora"),
    ),
}  # fmt: skip

GPT2: dict[str, Kind] = {
    "dora": ({}, ["--dora"], dict(use_dora=True)),
    "pissa": (
        {}, ["--target-modules", "c_attn,c_fc,mlp.c_proj", "--init", "pissa"],
        dict(target_modules=["c_attn", "c_fc", "mlp.c_proj"], init_lora_weights="pissa"),
    ),
    "bias_all": ({}, ["--bias", "all"], dict(bias="all")),
    "tokens": (
        {}, ["--trainable-tokens", "5,17,300"], dict(trainable_token_indices=[5, 17, 300]),
    ),
    "saved_head": ({}, ["--modules-to-save", "lm_head,ln_f"], dict(modules_to_save=["lm_head", "ln_f"])),
}  # fmt: skip

NOT_COMPARED = {"peft_version", "base_model_name_or_path", "task_type", "fan_in_fan_out"}


def written_config(folder: pathlib.Path) -> dict:
    config = json.loads((folder / "adapter_config.json").read_text())
    for name in ("target_modules", "modules_to_save"):
        if isinstance(config[name], list):
            config[name] = sorted(config[name])
    return {name: value for name, value in config.items() if name not in NOT_COMPARED}


def train_ours(context: Context, base: pathlib.Path, flags: list[str], run: str, steps: int, lr: float) -> None:
    context.run(
        "train", "--base", base, "--data", "corpus.txt", "--no-shuffle", "--compute", "f32", "--steps", steps,
        "--batch-size", 3, "--seq-len", 48, "--lr", lr, "--schedule", "constant", "--warmup", 0, "-r", 4,
        "--alpha", 6, "--run-dir", run, *flags,
    )  # fmt: skip


def compare_kind(context: Context, base: pathlib.Path, kind: Kind) -> None:
    _, flags, fields = kind
    (context.folder / "corpus.txt").write_text(corpus(context.root), encoding="utf-8")
    model = get_peft_model(open_model(base), LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, **fields))

    # One step at next to no rate: what our run starts from.
    train_ours(context, base, flags, "started", 1, 1e-30)
    model.save_pretrained(context.folder / "made", save_embedding_layers=False)
    ours, theirs = (load_file(context.folder / f / "adapter_model.safetensors") for f in ("started/adapter", "made"))
    assert_equal("keys", sorted(ours), sorted(theirs))
    assert_equal("shapes", {k: ours[k].shape for k in ours}, {k: theirs[k].shape for k in theirs})
    assert_equal("configuration", written_config(context.folder / "started/adapter"),
                 written_config(context.folder / "made"))  # fmt: skip
    drawn = "init_lora_weights" not in fields or fields["init_lora_weights"] in ("gaussian", "orthogonal")
    for key in ours:
        if "lora_A" in key and not drawn and key.replace("lora_A", "lora_B") in ours:
            # Signs of singular vectors are free; the products are not.
            other = key.replace("lora_A", "lora_B")
            assert_close(f"product of {key}", ours[other] @ ours[key], theirs[other] @ theirs[key], 1e-5)
        elif "lora_" not in key or "magnitude" in key or key.endswith("bias"):
            assert_close(key, ours[key], theirs[key], 1e-5)

    # The model starts as the base, and PEFT's copy of ours gives the same as ours.
    inputs = inputs_of()
    with torch.no_grad():
        bare = open_model(base)(**inputs).logits
    assert_close("first logits", lora_logits(context, "started/adapter", base, inputs), bare, LOADED_TOLERANCE)

    train_ours(context, base, flags, "trained", 8, 5e-3)
    reloaded = PeftModel.from_pretrained(open_model(base), context.folder / "trained/adapter")
    expected = peft_logits(reloaded, inputs)
    worst = assert_close("loaded logits", lora_logits(context, "trained/adapter", base, inputs), expected,
                         LOADED_TOLERANCE)  # fmt: skip
    effect = (expected - bare).abs().max().item()
    if effect < 100 * LOADED_TOLERANCE:
        raise AssertionError(f"the training moves logits by {effect:.3g} only: nothing is compared")
    context.note(f"PEFT's load of our adapter differs by {worst:.1e} where training moved logits by {effect:.2g}")
    compare_training(context, base, model, corpus(context.root), steps=8, batch=3, seq_len=48, lr=5e-3)


def register(name: str, family: str, kind: Kind) -> None:
    def run(context: Context) -> None:
        if family == "gpt2":
            base = make_gpt2(context, **kind[0])
        else:
            base = make_llama(context.root, context.folder / "base", **kind[0])
        compare_kind(context, base, kind)

    run.__name__ = name
    case(run)


for _name, _kind in LLAMA.items():
    register(f"kinds_llama_{_name}", "llama", _kind)
for _name, _kind in GPT2.items():
    register(f"kinds_gpt2_{_name}", "gpt2", _kind)


@case
def kinds_pissa_of_random_columns(context: Context) -> None:
    """PEFT draws other columns on each load, so the result is a plain adapter of twice the rank."""
    base = make_llama(context.root, context.folder / "base")
    (context.folder / "corpus.txt").write_text(corpus(context.root), encoding="utf-8")
    flags = ["--target-modules", "q_proj,up_proj", "--init", "pissa_niter_4", "--rslora", "--rank-pattern", "q_proj=3"]
    train_ours(context, base, flags, "trained", 8, 5e-3)
    context.run("verify", "trained/adapter", "--base", base, "--outputs")
    inputs = inputs_of()
    theirs = peft_logits(PeftModel.from_pretrained(open_model(base), context.folder / "trained/adapter"), inputs)
    for adapter in ("trained/adapter", "trained/checkpoints/step-000008"):
        worst = assert_close(adapter, lora_logits(context, adapter, base, inputs), theirs, LOADED_TOLERANCE)
    context.note(f"PEFT's load differs by {worst:.2g}")


def check_added_tokens(context: Context, family: str, is_tied: bool) -> None:
    """New tokens: their numbers are transformers', and PEFT loads the adapter on a base it has resized."""
    if family == "gpt2":
        base = make_gpt2(context)
    else:
        base = make_llama(context.root, context.folder / "base", tie_word_embeddings=is_tied)
    words = ["<tool>", "licence-holder", "</tool>"]
    (context.folder / "words.txt").write_text("\n".join(words) + "\n")
    text = corpus(context.root).replace("the", "<tool>licence-holder</tool>")
    (context.folder / "corpus.txt").write_text(text, encoding="utf-8")
    train_ours(context, base, ["--add-tokens", "words.txt"], "run", 8, 5e-3)
    adapter = context.folder / "run/adapter"

    theirs = AutoTokenizer.from_pretrained(base)
    first = len(theirs)
    assert_equal("added", theirs.add_tokens(words), len(words))
    ours = AutoTokenizer.from_pretrained(adapter)
    for sample in ("a <tool> b", "licence-holder", text[:2000]):
        assert_equal("ids of a text", ours(sample)["input_ids"], theirs(sample)["input_ids"])
    model = open_model(base)
    bare = open_model(base)
    model.resize_token_embeddings(len(theirs), mean_resizing=False)
    for table in {id(t): t for t in (model.get_input_embeddings(), model.get_output_embeddings())}.values():
        with torch.no_grad():  # what was drawn is nobody's business: the adapter brings these rows
            table.weight[first:] = 7.0
    loaded = PeftModel.from_pretrained(model, adapter)
    inputs = {"input_ids": torch.tensor([[5, first, 9, first + 2, 11, first + 1, 3]])}
    expected = peft_logits(loaded, inputs)
    worst = assert_close("logits", lora_logits(context, "run/adapter", base, inputs), expected, LOADED_TOLERANCE)
    old = {"input_ids": torch.tensor([[5, 9, 11, 3]])}
    moved = (peft_logits(loaded, old)[..., :first] - peft_logits(bare, old)).abs().max().item()
    context.run("verify", "run/adapter", "--base", base, "--outputs")
    context.note(f"logits differ by {worst:.1e}, training moved old ones by {moved:.2g}")


@case
def kinds_added_tokens_tied(context: Context) -> None:
    check_added_tokens(context, "llama", True)


@case
def kinds_added_tokens_untied(context: Context) -> None:
    check_added_tokens(context, "llama", False)


@case
def kinds_added_tokens_gpt2(context: Context) -> None:
    check_added_tokens(context, "gpt2", True)


@case
def kinds_olora_on_conv1d_is_refused(context: Context) -> None:
    base = make_gpt2(context)
    (context.folder / "corpus.txt").write_text(corpus(context.root), encoding="utf-8")
    context.run("train", "--base", base, "--data", "corpus.txt", "--run-dir", "run", "--init", "olora", "--steps", 1,
                exit_code=3)  # fmt: skip


@case
def kinds_pissa_of_a_bf16_base(context: Context) -> None:
    """The residual is rounded to the base's dtype, as PEFT rounds it."""
    base = make_llama(context.root, context.folder / "base")
    model = open_model(base).to(torch.bfloat16)
    model.save_pretrained(base)
    (context.folder / "corpus.txt").write_text(corpus(context.root), encoding="utf-8")
    flags = ["--target-modules", "all-linear", "--init", "pissa", "--compute", "bf16"]
    train_ours(context, base, flags, "trained", 8, 5e-3)
    peft = PeftModel.from_pretrained(model, context.folder / "trained/adapter")
    inputs = inputs_of()
    ours, rounded = load_and_run(context, base, inputs), peft_logits(peft, inputs).float()
    exact = peft_logits(peft.float(), inputs)  # the same weights, sums without rounding to bf16
    worst = assert_close("logits", ours, exact, 2 * (rounded - exact).abs().max().item())
    context.note(f"logits differ by {worst:.1e} from f32 sums, PEFT's in bf16 by {(rounded - exact).abs().max():.1e}")


def load_and_run(context: Context, base: pathlib.Path, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    from safetensors.torch import save_file

    save_file(inputs, context.folder / "input.safetensors")
    context.run("load", "trained/adapter", "--base", base, "--input", "input.safetensors", "--output",
                "output.safetensors", "--force")  # fmt: skip
    return load_file(context.folder / "output.safetensors")["logits"]

"""The same training with PEFT and with `lora`, and the same forward passes, compared."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
)

from parity.harness import Context, assert_close, assert_equal

LOSS_TOLERANCE = 1e-3
TRAINED_LOGITS_TOLERANCE = 5e-4
LOGITS_TOLERANCE = 2e-4


def open_model(directory: pathlib.Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def lora_logits(
    context: Context, adapter: object, base: object, inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    save_file(inputs, context.folder / "input.safetensors")
    context.run(
        "load", adapter, "--base", base, "--compute", "f32", "--input", "input.safetensors",
        "--output", "output.safetensors", "--force",
    )  # fmt: skip
    return load_file(context.folder / "output.safetensors")["logits"]


def peft_logits(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


def text_blocks(directory: pathlib.Path, text: str, seq_len: int) -> torch.Tensor:
    """One token stream cut into blocks, the rest dropped: [blocks, seq_len].

    By tokenizer.json as it is: AutoTokenizer takes Qwen 2's own splitting of digits for that family, whatever the file says.
    """
    ids = PreTrainedTokenizerFast.from_pretrained(directory)(text)["input_ids"]
    count = len(ids) // seq_len
    return torch.tensor(ids[: count * seq_len]).view(count, seq_len)


def compare_training(
    context: Context,
    base: pathlib.Path,
    model: torch.nn.Module,
    text: str,
    *,
    steps: int = 20,
    batch: int = 4,
    seq_len: int = 64,
    lr: float = 1e-3,
    schedule: str = "constant",
    grad_accum: int = 1,
) -> None:
    """`model` is a PEFT model with its initial adapter on the weights in `base`."""
    (context.folder / "corpus.txt").write_text(text, encoding="utf-8")
    blocks = text_blocks(base, text, seq_len)
    compare_runs(
        context, base, model, "corpus.txt", len(blocks), lambda rows: {"input_ids": blocks[rows], "labels": blocks[rows]},
        {"input_ids": blocks[:2].contiguous()}, open_model, steps=steps, batch=batch, seq_len=seq_len, lr=lr,
        schedule=schedule, grad_accum=grad_accum,
    )  # fmt: skip


def compare_runs(
    context: Context,
    base: pathlib.Path,
    model: torch.nn.Module,
    data: str,
    examples: int,
    batch_of: Callable[[list[int]], dict[str, torch.Tensor]],
    inputs: dict[str, torch.Tensor],
    open_base: Callable[[pathlib.Path], torch.nn.Module],
    *,
    steps: int,
    batch: int,
    seq_len: int,
    lr: float,
    schedule: str = "constant",
    grad_accum: int = 1,
    flags: tuple[object, ...] = (),
    loss_of: Callable[[torch.nn.Module, dict], torch.Tensor] = lambda model, inputs: model(**inputs).loss,
) -> None:
    """The file `data` holds `examples` examples, of which batch_of gives those of some rows to PEFT's model.

    `inputs` are what the trained adapters are compared on.
    """
    model.save_pretrained(context.folder / "initial")
    initial = load_file(context.folder / "initial/adapter_model.safetensors")
    warmup = 0.1 if schedule == "cosine" else 0
    context.run(
        "train", "--base", base, "--adapter", "initial", "--data", data, "--no-shuffle",
        "--compute", "f32", "--steps", steps, "--batch-size", batch, "--seq-len", seq_len, "--lr", lr,
        "--schedule", schedule, "--warmup", warmup, "--grad-accum", grad_accum, "--run-dir", "run",
        *flags,
    )  # fmt: skip

    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)
    if schedule == "cosine":
        rates = get_cosine_schedule_with_warmup(optimizer, math.ceil(warmup * steps), steps)
    else:
        rates = get_constant_schedule_with_warmup(optimizer, 0)
    model.train()
    theirs: list[tuple[float, float, float]] = []
    for step in range(steps):
        total = 0.0
        for micro in range(grad_accum):
            first = (step * grad_accum + micro) * batch
            loss = loss_of(model, batch_of([(first + i) % examples for i in range(batch)])) / grad_accum
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(trainable, 1.0).item()
        theirs.append((total, rates.get_last_lr()[0], norm))
        optimizer.step()
        rates.step()
        optimizer.zero_grad()
    model.eval()

    lines = map(json.loads, (context.folder / "run/metrics.jsonl").read_text().splitlines())
    ours = [(e["loss"], e["lr"], e["grad_norm"]) for e in lines if e["type"] == "step"]
    assert_equal("number of steps", len(ours), steps)
    loss_difference = assert_close(
        "losses", torch.tensor([e[0] for e in ours]), torch.tensor([e[0] for e in theirs]), LOSS_TOLERANCE
    )
    assert_close("learning rates", torch.tensor([e[1] for e in ours]), torch.tensor([e[1] for e in theirs]), 1e-9)
    norms = torch.tensor([e[2] for e in theirs])
    assert_close("gradient norms / PEFT's", torch.tensor([e[2] for e in ours]) / norms, norms / norms, 1e-2)

    # PEFT adds copies of embeddings that are targets; `lora` never carries the base's weights along.
    model.save_pretrained(context.folder / "theirs", save_embedding_layers=False)
    trained = load_file(context.folder / "theirs/adapter_model.safetensors")
    mine = load_file(context.folder / "run/adapter/adapter_model.safetensors")
    assert_equal("adapter keys", sorted(mine), sorted(trained))
    # Adam moves an element by its gradient's sign, also where the gradient is rounding noise: single
    # elements may part, the whole must not.
    apart = math.sqrt(sum((mine[k] - trained[k]).double().square().sum().item() for k in trained))
    moved = math.sqrt(sum((trained[k] - initial[k]).double().square().sum().item() for k in trained))
    if not apart <= 0.01 * moved:
        raise AssertionError(f"the adapters are {apart:.3g} apart after moving {moved:.3g}")

    with_theirs = peft_logits(model, inputs)
    with model.disable_adapter():
        effect = (peft_logits(model, inputs) - with_theirs).abs().max().item()
    if effect < 100 * TRAINED_LOGITS_TOLERANCE:
        raise AssertionError(f"the training changes logits by {effect:.3g} only: nothing is compared")
    ours_of_theirs = assert_close(
        "lora load of PEFT's adapter, logits",
        lora_logits(context, "theirs", base, inputs), with_theirs, TRAINED_LOGITS_TOLERANCE,
    )  # fmt: skip
    reloaded = PeftModel.from_pretrained(open_base(base), context.folder / "run/adapter")
    peft_of_ours = assert_close(
        "PEFT's load of our adapter, logits",
        lora_logits(context, "run/adapter", base, inputs), peft_logits(reloaded, inputs), TRAINED_LOGITS_TOLERANCE,
    )  # fmt: skip
    context.note(
        f"{steps} losses differ by {loss_difference:.1e}, adapters by {apart / moved:.1e} of the way, "
        f"logits by {ours_of_theirs:.1e} and {peft_of_ours:.1e} where training moved them by {effect:.2g}"
    )


def compare_greedy(
    context: Context, base: pathlib.Path, model: torch.nn.Module, adapter: object, prompts: list[str], tokens: int
) -> None:
    """Greedy continuations are the same tokens as transformers'."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False
            )
        theirs = out[0, ids.shape[1] :].tolist()
        result = context.run(
            "load", adapter, "--base", base, "--compute", "f32", "--prompt", prompt, "--max-new-tokens", tokens
        )
        ours = list(result["token_ids"])
        stops = {tokenizer.eos_token_id}
        while theirs and theirs[-1] in stops:
            theirs.pop()
        while ours and ours[-1] in stops:
            ours.pop()
        assert_equal(f"tokens after {prompt!r}", ours, theirs)


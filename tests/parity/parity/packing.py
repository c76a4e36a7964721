"""Documents that share rows, and the additions to the loss, against PEFT on padded batches."""

from __future__ import annotations

import json

import torch
from peft import LoraConfig, get_peft_model
from transformers.trainer_pt_utils import LabelSmoother

from parity.comparison import compare_runs, open_model
from parity.harness import Context, assert_equal, case
from parity.networks import make_llama

SEQUENCE = 48


def write_documents(context: Context) -> dict[str, torch.Tensor]:
    """Documents of many lengths, of some of which the first part has no loss; all of them, padded."""
    generator = torch.Generator().manual_seed(5)
    lengths = [int(n) for n in torch.randint(2, SEQUENCE, (24,), generator=generator)]
    inputs = torch.zeros(len(lengths), SEQUENCE, dtype=torch.long)
    labels = torch.full_like(inputs, -100)
    lines = []
    for i, length in enumerate(lengths):
        ids = torch.randint(1, 512, (length,), generator=generator)
        supervised = ids.clone()
        if i % 2:
            supervised[: length // 2] = -100
        inputs[i, :length], labels[i, :length] = ids, supervised
        lines.append(json.dumps({"input_ids": ids.tolist(), "labels": supervised.tolist()}))
    (context.folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    mask = torch.arange(SEQUENCE)[None, :] < torch.tensor(lengths)[:, None]
    return {"input_ids": inputs, "labels": labels, "attention_mask": mask.long()}


def compare(context: Context, flags: tuple[object, ...], loss_of) -> None:
    """Steps over all documents: packed in ours, one a row in PEFT's."""
    base = make_llama(context.root, context.folder / "base")
    padded = write_documents(context)
    plan = context.run(
        "train", "--base", base, "--data", "data.jsonl", "--seq-len", SEQUENCE, "--pack", "--no-shuffle",
        "--dry-run", "--run-dir", "run",
    )["plan"]  # fmt: skip
    assert_equal("documents", plan["examples"], len(padded["input_ids"]))
    model = get_peft_model(open_model(base), LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear"))
    compare_runs(
        context, base, model, "data.jsonl", plan["rows"], lambda rows: padded,
        {"input_ids": padded["input_ids"][:4], "attention_mask": padded["attention_mask"][:4]}, open_model,
        steps=6, batch=plan["rows"], seq_len=SEQUENCE, lr=5e-3, flags=("--pack", *flags), loss_of=loss_of,
    )  # fmt: skip
    context.note(f"{plan['examples']} documents in {plan['rows']} rows, {100 * plan['fill']:.0f} % full")


@case
def packed_training_is_padded_training(context: Context) -> None:
    compare(context, (), lambda model, inputs: model(**inputs).loss)


@case
def packed_training_with_smoothed_labels_and_z_loss(context: Context) -> None:
    def loss_of(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        output = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        smoothed = LabelSmoother(0.1)(output, inputs["labels"], shift_labels=True)
        supervised = output.logits[:, :-1][inputs["labels"][:, 1:] != -100]
        return smoothed + 1e-2 * supervised.logsumexp(-1).square().mean()

    compare(context, ("--label-smoothing", 0.1, "--z-loss", 1e-2), loss_of)

"""Encoders, gpt_neox and their heads: logits, training with labels of tokens and of sequences, saved adapters."""

from __future__ import annotations

import json
import pathlib

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from parity.comparison import LOGITS_TOLERANCE, compare_runs, compare_training, lora_logits, peft_logits
from parity.families import BERT, GPT2, VOCABULARY, compare_logits, randomise, register, write_model
from parity.harness import Context, assert_close, case
from parity.healthy import complaints, findings
from parity.networks import corpus, make_tokenizer

DISTILBERT = dict(
    vocab_size=VOCABULARY, dim=48, n_layers=3, n_heads=4, hidden_dim=96, max_position_embeddings=128,
    initializer_range=0.1, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0,
)  # fmt: skip
ENCODER = {**BERT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NEOX = dict(
    vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
    max_position_embeddings=128, initializer_range=0.1, classifier_dropout=0.0, pad_token_id=3,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
)  # fmt: skip

# Class prefix, settings, LoRA targets, an embedding, padding.
FAMILIES: dict[str, tuple[str, dict[str, object], list[str], str, int]] = {
    "bert": ("Bert", ENCODER, ["query", "value"], "word_embeddings", 0),
    "roberta": ("Roberta", ENCODER, ["query", "value"], "position_embeddings", 1),
    "xlm_roberta": ("XLMRoberta", ENCODER, ["key", "output.dense"], "word_embeddings", 1),
    "camembert": ("Camembert", ENCODER, ["intermediate.dense"], "word_embeddings", 1),
    "distilbert": ("DistilBert", DISTILBERT, ["q_lin", "v_lin", "lin2"], "word_embeddings", 0),
    "gpt2": ("GPT2", {**GPT2, "pad_token_id": 3}, ["c_attn"], "wte", 3),
    "gpt_neox": ("GPTNeoX", NEOX, ["query_key_value", "dense_4h_to_h"], "embed_in", 3),
}
HEADS = {
    "language": ("ForMaskedLM", transformers.AutoModelForMaskedLM, None),
    "sequence": ("ForSequenceClassification", transformers.AutoModelForSequenceClassification, "SEQ_CLS"),
    "tokens": ("ForTokenClassification", transformers.AutoModelForTokenClassification, "TOKEN_CLS"),
}
KINDS: dict[str, dict[str, object]] = {
    "plain": dict(),
    "dora": dict(use_dora=True, use_rslora=True),
    "bias_all": dict(bias="all"),
    "bias_lora_only": dict(bias="lora_only", lora_bias=True),
}


def head_of(family: str, head: str) -> tuple[str, type, str | None]:
    if family == "gpt_neox" and head == "language":
        return "ForCausalLM", transformers.AutoModelForCausalLM, "CAUSAL_LM"
    return HEADS[head]


def make_base(context: Context, family: str, head: str, **changes: object) -> pathlib.Path:
    torch.manual_seed(9)
    prefix, settings, *_ = FAMILIES[family]
    kind = getattr(transformers, prefix + head_of(family, head)[0])
    return write_model(kind(kind.config_class(**{**settings, "num_labels": 4, **changes})), context.folder / "base")


def padded(family: str, side: str) -> dict[str, torch.Tensor]:
    padding = FAMILIES[family][4]
    ids = torch.randint(4, VOCABULARY, (3, 40))
    mask = torch.ones_like(ids)
    mask[0, :11 if side == "left" else 0] = 0
    mask[0, 29 if side == "right" else 40 :] = 0
    return {"input_ids": ids.masked_fill(mask == 0, padding), "attention_mask": mask}


def check_logits(context: Context, family: str, head: str, kind: str) -> None:
    settings = dict(KINDS[kind])
    targets = [*FAMILIES[family][2]]
    if kind == "dora":
        targets.append(FAMILIES[family][3])
    _, auto, task = head_of(family, head)
    compare_logits(
        context, make_base(context, family, head), auto, padded(family, "right"), task_type=task,
        target_modules=targets, **settings,
    )  # fmt: skip


def check_left_padding(context: Context, family: str, head: str) -> None:
    """What stands under the padding is nobody's: all else must be equal."""
    base = make_base(context, family, head)
    _, auto, task = head_of(family, head)
    model = get_peft_model(auto.from_pretrained(base).eval(), LoraConfig(task_type=task, target_modules=FAMILIES[family][2]))
    randomise(model)
    model.save_pretrained(context.folder / "adapter")
    inputs = padded(family, "left")
    theirs, ours = peft_logits(model, inputs), lora_logits(context, "adapter", base, inputs)
    if theirs.dim() == 3:
        theirs, ours = (x[inputs["attention_mask"] == 1] for x in (theirs, ours))
    worst = assert_close("logits", ours, theirs, LOGITS_TOLERANCE)
    context.note(f"logits differ by {worst:.1e}")


def write_lines(context: Context, lines: list[dict]) -> None:
    with (context.folder / "data.jsonl").open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def check_training(context: Context, family: str, head: str, labels: str) -> None:
    """Rows of different lengths with labels of their own."""
    changes: dict[str, object] = {}
    if labels == "value":
        changes["num_labels"] = 1
    if labels == "regression":
        changes.update(num_labels=3, problem_type="regression")
    base = make_base(context, family, head, **changes)
    _, auto, task = head_of(family, head)
    padding = FAMILIES[family][4]
    generator = torch.Generator().manual_seed(4)
    rows, targets = [], []
    for i in range(24):
        ids = torch.randint(4, VOCABULARY, (10 + i % 7,), generator=generator)
        rows.append(ids)
        if head == "sequence":
            targets.append({
                "classes": ids[1] % 4, "value": (ids[:1] / VOCABULARY).float(),
                "several": (ids[:4] % 2).float(), "regression": (ids[:3] / VOCABULARY).float(),
            }[labels])  # fmt: skip
        else:
            count = 4 if head == "tokens" else VOCABULARY
            targets.append((ids % count).masked_fill(ids % 5 == 0, -100))
    name = "label" if head == "sequence" else "labels"
    write_lines(context, [
        {"input_ids": ids.tolist(), name: target.tolist()} for ids, target in zip(rows, targets)
    ])  # fmt: skip

    def batch_of(indices: list[int]) -> dict[str, torch.Tensor]:
        pad = torch.nn.utils.rnn.pad_sequence
        chosen = [rows[i] for i in indices]
        result = {
            "input_ids": pad(chosen, True, padding),
            "attention_mask": pad([torch.ones_like(ids) for ids in chosen], True, 0),
        }
        if head == "sequence":
            result["labels"] = torch.stack([targets[i] for i in indices]).view(
                (len(indices),) if labels == "classes" else (len(indices), -1)
            )
        else:
            result["labels"] = pad([targets[i] for i in indices], True, -100)
        return result

    def open_base(directory: pathlib.Path) -> torch.nn.Module:
        return auto.from_pretrained(directory, dtype=torch.float32).eval()

    model = get_peft_model(
        open_base(base), LoraConfig(task_type=task, target_modules=FAMILIES[family][2], r=4, lora_alpha=8)
    )
    inputs = {k: v for k, v in batch_of([0, 1, 2]).items() if k != "labels"}
    compare_runs(
        context, base, model, "data.jsonl", len(rows), batch_of, inputs, open_base, steps=12, batch=3, seq_len=64, lr=5e-3
    )


for _family in FAMILIES:
    for _head in ("sequence",) if _family == "gpt2" else HEADS:
        for _kind in KINDS:
            register(f"{_family}_{_head}_head_logits_{_kind}", check_logits, _family, _head, _kind)
        register(f"{_family}_{_head}_head_left_padding", check_left_padding, _family, _head)
        if _head == "sequence":
            for _labels in ("classes", "value", "several", "regression"):
                register(f"{_family}_training_{_labels}", check_training, _family, _head, _labels)
        elif _family != "gpt_neox" or _head == "tokens":
            register(f"{_family}_training_{_head}", check_training, _family, _head, "")


@case
def gpt_neox_training_text(context: Context) -> None:
    base = make_base(context, "gpt_neox", "language", use_parallel_residual=False, attention_bias=False)
    make_tokenizer(corpus(context.root), VOCABULARY).save_pretrained(base)
    model = get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", r=4)
    )
    compare_training(context, base, model, corpus(context.root), steps=12, batch=3, seq_len=48, lr=5e-3)


@case
def gpt_neox_tied(context: Context) -> None:
    base = make_base(context, "gpt_neox", "language", tie_word_embeddings=True, use_parallel_residual=False)
    compare_logits(
        context, base, transformers.AutoModelForCausalLM, padded("gpt_neox", "right"), task_type="CAUSAL_LM",
        target_modules=["embed_in", "query_key_value", "lm_head"],
    )  # fmt: skip


@case
def gpt_neox_saved_head(context: Context) -> None:
    base = make_base(context, "gpt_neox", "language")
    compare_logits(
        context, base, transformers.AutoModelForCausalLM, padded("gpt_neox", "right"), task_type="CAUSAL_LM",
        target_modules=["dense"], modules_to_save=["lm_head", "final_layer_norm"],
    )  # fmt: skip


@case
def adapters_begun_here_have_peft_s_form(context: Context) -> None:
    """A token classifier trained from nothing: PEFT reads its adapter, verify finds nothing."""
    for family in ("bert", "roberta", "distilbert", "gpt_neox"):
        folder = context.folder / family
        folder.mkdir()
        inner = Context(context.lora, context.model, context.root, folder)
        base = make_base(inner, family, "tokens")
        write_lines(inner, [{"input_ids": [5, 6, 7, i], "labels": [0, 1, -100, i % 4]} for i in range(10, 30)])
        targets = FAMILIES[family][2]
        inner.run(
            "train", "--base", base, "--data", "data.jsonl", "--steps", 4, "--lr", "1e-2", "--run-dir", "run",
            "--target-modules", ",".join(targets),
        )  # fmt: skip
        code, found = findings(inner, str(folder / "run/adapter"), "--base", str(base))
        if code != 0 or complaints(found):
            raise AssertionError(f"{family}: verify ended with {code}, {complaints(found)}")
        written = json.loads((folder / "run/adapter/adapter_config.json").read_text())
        if written["task_type"] != "TOKEN_CLS":
            raise AssertionError(f"{family}: task_type {written['task_type']}")
        auto = transformers.AutoModelForTokenClassification
        model = PeftModel.from_pretrained(auto.from_pretrained(base).eval(), folder / "run/adapter")
        inputs = padded(family, "right")
        worst = assert_close(
            f"{family} logits", lora_logits(inner, "run/adapter", base, inputs), peft_logits(model, inputs), LOGITS_TOLERANCE
        )
        context.note(f"{family}: logits differ by {worst:.1e}")

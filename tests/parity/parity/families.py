"""gpt2, bert and llama with every kind of LoRA that has a layer in the engine."""

from __future__ import annotations

import json
import pathlib

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
)

from parity.comparison import (
    LOGITS_TOLERANCE,
    compare_greedy,
    compare_training,
    lora_logits,
    open_model,
    peft_logits,
)
from parity.harness import Context, assert_close, assert_equal, case
from parity.networks import corpus, make_llama, make_tokenizer

VOCABULARY = 320
GPT2 = dict(
    vocab_size=VOCABULARY, n_positions=128, n_embd=48, n_head=4, n_layer=3, resid_pdrop=0.0, embd_pdrop=0.0,
    attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, initializer_range=0.1,
)  # fmt: skip
BERT = dict(
    vocab_size=VOCABULARY, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
    max_position_embeddings=128, initializer_range=0.1,
)  # fmt: skip


def write_model(model: torch.nn.Module, folder: pathlib.Path) -> pathlib.Path:
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide mistakes
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") or "ln_" in name or "LayerNorm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def make_gpt2(context: Context, **changes: object) -> pathlib.Path:
    torch.manual_seed(5)
    base = write_model(GPT2LMHeadModel(GPT2Config(**{**GPT2, **changes})), context.folder / "base")
    make_tokenizer(corpus(context.root), VOCABULARY).save_pretrained(base)
    return base


def make_classifier(context: Context, family: str, **changes: object) -> pathlib.Path:
    torch.manual_seed(6)
    if family == "gpt2":
        settings = {**GPT2, "num_labels": 4, "pad_token_id": 3, **changes}
        return write_model(GPT2ForSequenceClassification(GPT2Config(**settings)), context.folder / "base")
    settings = {**BERT, "num_labels": 4, **changes}
    return write_model(BertForSequenceClassification(BertConfig(**settings)), context.folder / "base")


def make_masked(context: Context) -> pathlib.Path:
    torch.manual_seed(7)
    return write_model(BertForMaskedLM(BertConfig(**BERT)), context.folder / "base")


def randomise(model: torch.nn.Module) -> None:
    """Moves everything that trains, shared tensors once."""
    for parameter in {id(p): p for p in model.parameters() if p.requires_grad}.values():
        parameter.data += torch.randn_like(parameter) * 0.1


def inputs_of(rows: int = 3, columns: int = 40, padding: int = 3) -> dict[str, torch.Tensor]:
    ids = torch.randint(4, VOCABULARY, (rows, columns))
    mask = torch.ones_like(ids)
    mask[0, columns - 11 :] = 0
    return {"input_ids": ids.masked_fill(mask == 0, padding), "attention_mask": mask}


def compare_logits(context: Context, base: pathlib.Path, auto: type, inputs: dict, **settings: object) -> None:
    """An adapter that PEFT made and saved: its logits in `lora` and in PEFT, fresh and reloaded."""
    model = get_peft_model(auto.from_pretrained(base, dtype=torch.float32).eval(), LoraConfig(**settings))
    with torch.no_grad():
        bare = auto.from_pretrained(base, dtype=torch.float32).eval()(**inputs).logits
    randomise(model)
    model.save_pretrained(context.folder / "adapter")
    theirs = peft_logits(model, inputs)
    reloaded = PeftModel.from_pretrained(
        auto.from_pretrained(base, dtype=torch.float32).eval(), context.folder / "adapter"
    )
    assert_close("PEFT, fresh and reloaded", peft_logits(reloaded, inputs), theirs, 1e-5)
    ours = lora_logits(context, "adapter", base, inputs)
    worst = assert_close("logits", ours, theirs, LOGITS_TOLERANCE)
    effect = (theirs - bare).abs().max().item()
    if effect < 100 * LOGITS_TOLERANCE:
        raise AssertionError(f"the adapter moves logits by {effect:.3g} only: nothing is compared")
    context.note(f"logits differ by {worst:.1e}, the adapter moves them by {effect:.2g}")


GPT2_KINDS: dict[str, dict[str, object]] = {
    "plain": dict(target_modules=["c_attn"], r=8, lora_alpha=16),
    "rslora_patterns": dict(
        target_modules=["c_attn", "c_proj", "c_fc"], use_rslora=True, rank_pattern={"attn.c_proj": 3},
        alpha_pattern={"h.1.mlp.c_proj": 5, "c_fc": 2},
    ),
    "dora": dict(target_modules=["c_attn", "c_proj", "c_fc"], use_dora=True),
    "dora_embedding": dict(target_modules=["wte", "wpe", "c_attn"], use_dora=True),
    "lora_bias": dict(target_modules=["c_attn", "c_proj"], lora_bias=True),
    "embedding": dict(target_modules=["wte", "wpe"]),
    "tied_head": dict(target_modules=["lm_head", "c_attn"]),
    "tied_both": dict(target_modules=["wte", "lm_head"]),
    "tied_ensured": dict(target_modules=["wte", "c_attn"], ensure_weight_tying=True),
    "tokens_tied": dict(target_modules=["c_attn"], trainable_token_indices={"wte": [5, 300, 17]}),
    "tokens_tied_head_lora": dict(target_modules=["c_attn", "lm_head"], trainable_token_indices={"wte": [5, 300]}),
    "saved_modules": dict(target_modules=["c_attn"], modules_to_save=["ln_f", "wpe", "lm_head"]),
    "bias_all": dict(target_modules=["c_attn"], bias="all", modules_to_save=["ln_f"]),
    "bias_lora_only": dict(target_modules=["c_attn", "c_proj"], bias="lora_only"),
    "some_layers": dict(target_modules=["c_attn"], layers_to_transform=[0, 2]),
    "mica": dict(target_modules=["c_attn"], init_lora_weights="mica"),
}  # fmt: skip

CLASSIFIER_KINDS: dict[str, dict[str, object]] = {
    "plain": dict(),
    "dora": dict(use_dora=True),
    "bias_all": dict(bias="all"),
    "saved_modules": dict(modules_to_save=["classifier", "score", "LayerNorm", "ln_1"]),
}

BERT_KINDS: dict[str, dict[str, object]] = {
    "dense": dict(target_modules=["dense", "query"], rank_pattern={"pooler.dense": 2}),
    "dora_embedding": dict(target_modules=["word_embeddings", "position_embeddings", "key"], use_dora=True),
    "tokens": dict(target_modules=["query"], trainable_token_indices={"word_embeddings": [0, 9]}),
    "lora_bias": dict(target_modules=["query", "dense"], lora_bias=True),
}

LLAMA_KINDS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "dora": (dict(), dict(target_modules="all-linear", use_dora=True)),
    "dora_head": (dict(), dict(target_modules=["lm_head", "embed_tokens"], use_dora=True)),
    "embedding": (dict(), dict(target_modules=["embed_tokens", "q_proj"])),
    "tied_both": (dict(tie_word_embeddings=True), dict(target_modules=["embed_tokens", "lm_head"])),
    "tied_ensured": (
        dict(tie_word_embeddings=True),
        dict(target_modules=["embed_tokens", "v_proj"], ensure_weight_tying=True),
    ),
    "tied_saved": (
        dict(tie_word_embeddings=True),
        dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    ),
    "tokens": (dict(tie_word_embeddings=True), dict(target_modules=["q_proj"], trainable_token_indices=[3, 200])),
    "tokens_untied": (
        dict(),
        dict(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [3, 200], "lm_head": [7]}),
    ),
}


def register(name: str, check: object, *arguments: object) -> None:
    def run(context: Context) -> None:
        check(context, *arguments)  # type: ignore[operator]

    run.__name__ = name
    case(run)


def check_gpt2(context: Context, kind: str) -> None:
    compare_logits(
        context, make_gpt2(context), AutoModelForCausalLM, inputs_of(), task_type="CAUSAL_LM", **GPT2_KINDS[kind]
    )


def check_classifier(context: Context, family: str, kind: str) -> None:
    base = make_classifier(context, family)
    targets = ["c_attn"] if family == "gpt2" else ["query", "value"]
    compare_logits(
        context, base, AutoModelForSequenceClassification, inputs_of(padding=3 if family == "gpt2" else 0),
        task_type="SEQ_CLS", target_modules=targets, **CLASSIFIER_KINDS[kind],
    )  # fmt: skip


def check_bert(context: Context, kind: str) -> None:
    base = make_classifier(context, "bert", pad_token_id=9)
    inputs = inputs_of(padding=9)
    inputs["token_type_ids"] = torch.randint(0, 2, inputs["input_ids"].shape)
    compare_logits(
        context, base, AutoModelForSequenceClassification, inputs, task_type="SEQ_CLS", **BERT_KINDS[kind]
    )


def check_llama(context: Context, kind: str) -> None:
    shape, settings = LLAMA_KINDS[kind]
    base = make_llama(context.root, context.folder / "base", **shape)
    compare_logits(context, base, AutoModelForCausalLM, inputs_of(), task_type="CAUSAL_LM", **settings)


for _kind in GPT2_KINDS:
    register(f"gpt2_logits_{_kind}", check_gpt2, _kind)
for _kind in CLASSIFIER_KINDS:
    register(f"gpt2_classifier_logits_{_kind}", check_classifier, "gpt2", _kind)
    register(f"bert_classifier_logits_{_kind}", check_classifier, "bert", _kind)
for _kind in BERT_KINDS:
    register(f"bert_logits_{_kind}", check_bert, _kind)
for _kind in LLAMA_KINDS:
    register(f"llama_logits_{_kind}", check_llama, _kind)


@case
def bert_masked_language_model(context: Context) -> None:
    inputs = inputs_of(padding=0)
    compare_logits(
        context, make_masked(context), AutoModelForMaskedLM, inputs,
        target_modules=["query", "decoder", "word_embeddings"], bias="all",
    )  # fmt: skip


@case
def bert_masked_language_model_tokens(context: Context) -> None:
    compare_logits(
        context, make_masked(context), AutoModelForMaskedLM, inputs_of(padding=0),
        target_modules=["query"], trainable_token_indices={"word_embeddings": [5, 40]},
    )  # fmt: skip


@case
def bert_classifier_on_a_language_model(context: Context) -> None:
    """The usual way: a classifier put on a masked language model's weights, its head in the adapter."""
    torch.manual_seed(8)
    whole = BertForSequenceClassification(BertConfig(**BERT, num_labels=5))
    base = context.folder / "base"
    write_model(whole, base)
    config = json.loads((base / "config.json").read_text())
    config["architectures"] = ["BertForMaskedLM"]
    del config["id2label"], config["label2id"]
    (base / "config.json").write_text(json.dumps(config))
    auto = AutoModelForSequenceClassification
    model = get_peft_model(
        auto.from_pretrained(base, num_labels=5).eval(), LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    )
    randomise(model)
    model.save_pretrained(context.folder / "adapter")
    inputs = inputs_of(padding=0)
    worst = assert_close(
        "logits", lora_logits(context, "adapter", base, inputs), peft_logits(model, inputs), LOGITS_TOLERANCE
    )
    context.note(f"logits differ by {worst:.1e}")


@case
def gpt2_two_adapters_at_once(context: Context) -> None:
    base = make_gpt2(context)
    model = get_peft_model(open_model(base), LoraConfig(target_modules=["c_attn", "wte"], use_dora=True))
    randomise(model)
    model.save_pretrained(context.folder / "first")
    other = get_peft_model(open_model(base), LoraConfig(target_modules=["c_attn", "c_fc"], r=4, lora_alpha=12))
    randomise(other)
    other.save_pretrained(context.folder / "second")
    both = PeftModel.from_pretrained(open_model(base), context.folder / "first", adapter_name="first")
    both.load_adapter(context.folder / "second", adapter_name="second")
    both.base_model.set_adapter(["first", "second"])
    inputs = inputs_of()
    from safetensors.torch import load_file, save_file

    save_file(inputs, context.folder / "input.safetensors")
    context.run(
        "load", "first", "second", "--base", base, "--compute", "f32", "--input", "input.safetensors",
        "--output", "output.safetensors",
    )  # fmt: skip
    ours = load_file(context.folder / "output.safetensors")["logits"]
    worst = assert_close("logits", ours, peft_logits(both, inputs), LOGITS_TOLERANCE)
    context.note(f"logits differ by {worst:.1e}")


@case
def corda_is_refused(context: Context) -> None:
    """An initialisation that changed the base by data which is not at hand."""
    base = make_gpt2(context)
    model = get_peft_model(open_model(base), LoraConfig(target_modules=["c_attn"], task_type="CAUSAL_LM"))
    model.save_pretrained(context.folder / "adapter")
    config = json.loads((context.folder / "adapter/adapter_config.json").read_text())
    config["init_lora_weights"] = "corda"
    (context.folder / "adapter/adapter_config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    save_file(inputs_of(), context.folder / "input.safetensors")
    context.run(
        "load", "adapter", "--base", base, "--input", "input.safetensors", "--output", "o.safetensors", exit_code=3
    )


@case
def gpt2_greedy_tokens(context: Context) -> None:
    base = make_gpt2(context, initializer_range=0.3)
    model = get_peft_model(
        open_model(base), LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn", "wte"], use_dora=True)
    )
    randomise(model)
    model.save_pretrained(context.folder / "adapter")
    compare_greedy(context, base, model, "adapter", ["The licence", " def f(x):\n"], 24)


TRAINED: dict[str, dict[str, object]] = {
    "default_targets": dict(r=8, lora_alpha=16),
    "dora": dict(target_modules=["c_attn", "mlp.c_proj"], use_dora=True),
    "embedding_and_head": dict(target_modules=["wte", "wpe", "lm_head"]),
    "tokens": dict(target_modules=["c_attn"], trainable_token_indices={"wte": [5, 40, 100, 260]}),
    "lora_bias_and_biases": dict(target_modules=["c_attn", "c_proj"], lora_bias=True, bias="all"),
}


def check_training(context: Context, kind: str) -> None:
    base = make_gpt2(context)
    model = get_peft_model(open_model(base), LoraConfig(task_type="CAUSAL_LM", **TRAINED[kind]))
    compare_training(context, base, model, corpus(context.root), steps=12, batch=3, seq_len=48, lr=5e-3)


for _kind in TRAINED:
    register(f"gpt2_training_{_kind}", check_training, _kind)


@case
def llama_training_dora(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base")
    model = get_peft_model(
        open_model(base),
        LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], use_dora=True, r=4),
    )
    compare_training(context, base, model, corpus(context.root), steps=12, batch=3, seq_len=48, lr=5e-3)


@case
def gpt2_from_nothing(context: Context) -> None:
    """A preset base, an adapter of our own on it, checked by verify and read by PEFT."""
    context.run("init-base", "--preset", "tiny-gpt2", "-o", "base")
    generator = torch.Generator().manual_seed(3)
    with (context.folder / "data.jsonl").open("w") as file:
        for _ in range(24):
            start = int(torch.randint(0, 200, (1,), generator=generator))
            file.write(json.dumps({"input_ids": list(range(start, start + 40))}) + "\n")
    context.run(
        "train", "--base", "base", "--data", "data.jsonl", "--steps", 6, "--lr", "1e-2", "--run-dir", "run"
    )
    context.run("verify", "run/adapter", "--base", "base", "--outputs")
    written = json.loads((context.folder / "run/adapter/adapter_config.json").read_text())
    assert_equal("target_modules", written["target_modules"], ["c_attn"])
    assert_equal("fan_in_fan_out", written["fan_in_fan_out"], True)
    base = context.folder / "base"
    model = PeftModel.from_pretrained(open_model(base), context.folder / "run/adapter")
    inputs = {"input_ids": torch.randint(0, 288, (2, 30))}
    theirs = peft_logits(model, inputs)
    worst = assert_close("logits", lora_logits(context, "run/adapter", base, inputs), theirs, LOGITS_TOLERANCE)
    with model.disable_adapter():
        effect = (peft_logits(model, inputs) - theirs).abs().max().item()
    if effect < 100 * LOGITS_TOLERANCE:
        raise AssertionError(f"the training changes logits by {effect:.3g} only: nothing is compared")
    context.note(f"logits differ by {worst:.1e}, training moved them by {effect:.2g}")


@case
def bert_preset_wants_labels(context: Context) -> None:
    context.run("init-base", "--preset", "tiny-bert", "-o", "base")
    base = context.folder / "base"
    inputs = {"input_ids": torch.randint(0, 288, (2, 30))}
    compare_logits(context, base, AutoModelForMaskedLM, inputs, target_modules=["query", "value"])
    (context.folder / "data.jsonl").write_text(json.dumps({"input_ids": list(range(20))}) + "\n")
    context.run("train", "--base", "base", "--data", "data.jsonl", "--steps", 1, "--run-dir", "run", exit_code=3)

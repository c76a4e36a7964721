#!/usr/bin/env python3
"""Golden numbers of the engine tests, computed by transformers and PEFT on tiny random models.

Writes one folder a case under tests/golden/engine: a base (config.json, model.safetensors), an
adapter as PEFT saves it, and expected.safetensors with inputs, logits, greedy tokens, the loss of
one batch and the gradient of every trainable parameter under its key in the adapter file
("grad.<key>"). Needs torch, transformers, peft and safetensors (scripts/setup installs them for the
parity tests). Also writes tests/golden/checkpoint/modules.json: the module trees of small models of
every family as named_modules() lists them. Names of cases on the command line limit what is written.
"""

import json
import pathlib
import sys

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import (
    BertConfig, BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification,
    CamembertConfig, CamembertForSequenceClassification, DistilBertConfig, DistilBertForMaskedLM,
    DistilBertForSequenceClassification, DistilBertForTokenClassification, GPT2Config,
    GPT2ForSequenceClassification, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification, GPTNeoXForTokenClassification, LlamaConfig, LlamaForCausalLM, RobertaConfig,
    RobertaForMaskedLM, RobertaForSequenceClassification, RobertaForTokenClassification,
    XLMRobertaConfig, XLMRobertaForMaskedLM, XLMRobertaForTokenClassification,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "engine"
COMMON = dict(vocab_size=64, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
              rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1)
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
              high_freq_factor=4.0, original_max_position_embeddings=64)
LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)
QUARTER = dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25)
HALF = dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5)

CASES = {
    "llama_plain": (dict(tie_word_embeddings=True),
                    dict(r=4, lora_alpha=8, target_modules=LINEARS)),
    "llama_scaled": (dict(tie_word_embeddings=False, rope_parameters=LLAMA3, head_dim=12,
                          attention_bias=True, mlp_bias=True),
                     dict(r=3, lora_alpha=5, use_rslora=True, bias="all",
                          target_modules=["q_proj", "v_proj", "down_proj"],
                          rank_pattern={"v_proj": 5}, alpha_pattern={"layers.1.mlp.down_proj": 7})),
    "llama_saved": (dict(tie_word_embeddings=False, rope_parameters=LINEAR, num_key_value_heads=4),
                    dict(r=2, lora_alpha=4, target_modules=["o_proj"], lora_bias=False,
                         modules_to_save=["embed_tokens", "lm_head", "norm", "input_layernorm",
                                          "gate_proj"])),
    "llama_upper": (dict(tie_word_embeddings=True, num_key_value_heads=1),
                    dict(r=2, lora_alpha=2, target_modules=["up_proj"], layers_to_transform=[1])),
}


GPT2 = dict(vocab_size=48, n_positions=32, n_embd=16, n_head=2, n_layer=2, bos_token_id=0,
            eos_token_id=1, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
BERT = dict(vocab_size=48, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=32, hidden_dropout_prob=0,
            attention_probs_dropout_prob=0, layer_norm_eps=1e-6)
SMALL = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=64)
ROBERTA = dict(BERT, vocab_size=50, num_hidden_layers=1)
DISTILBERT = dict(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=24, dropout=0,
                  attention_dropout=0, seq_classif_dropout=0, max_position_embeddings=32)
NEOX = dict(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=32, classifier_dropout=0)
CLASSIFY = "SEQ_CLS"
CLASSIFY_TOKENS = "TOKEN_CLS"

# Cases for the generic layers: model class, its configuration, the adapter's.
GENERIC = {
    "gpt2_plain": (GPT2LMHeadModel, dict(GPT2, n_inner=20, scale_attn_by_inverse_layer_idx=True),
                   dict(r=4, lora_alpha=8, use_rslora=True, bias="lora_only", lora_bias=True,
                        target_modules=["c_attn", "c_proj", "lm_head"],
                        rank_pattern={"attn.c_proj": 3}, alpha_pattern={"h.1.mlp.c_proj": 5})),
    "gpt2_dora": (GPT2LMHeadModel, dict(GPT2, activation_function="relu"),
                  dict(r=3, lora_alpha=5, use_dora=True,
                       target_modules=["c_attn", "c_proj", "wte", "wpe"])),
    "gpt2_tokens": (GPT2LMHeadModel, dict(GPT2, scale_attn_weights=False,
                                          activation_function="quick_gelu"),
                    dict(r=2, lora_alpha=2, bias="all", target_modules=["c_fc", "wpe"],
                         modules_to_save=["ln_f"], trainable_token_indices={"wte": [5, 40, 7]})),
    "gpt2_classifier": (GPT2ForSequenceClassification, dict(GPT2, num_labels=3, pad_token_id=2),
                        dict(r=2, lora_alpha=4, task_type=CLASSIFY, target_modules=["c_attn"])),
    "bert_classifier": (BertForSequenceClassification, dict(BERT, num_labels=3),
                        dict(r=2, lora_alpha=4, task_type=CLASSIFY, lora_bias=True, bias="lora_only",
                             target_modules=["query", "value", "pooler.dense"])),
    "bert_dora": (BertForSequenceClassification,
                  dict(BERT, num_labels=1, hidden_act="gelu_new", pad_token_id=3),
                  dict(r=2, lora_alpha=3, task_type=CLASSIFY, use_dora=True,
                       target_modules=["key", "dense", "word_embeddings"])),
    "bert_language": (BertForMaskedLM, dict(BERT, hidden_act="silu"),
                      dict(r=2, lora_alpha=3, bias="all",
                           target_modules=["query", "word_embeddings", "decoder"])),
    "bert_tokens": (BertForMaskedLM, dict(BERT, pad_token_id=4),
                    dict(r=2, lora_alpha=3, target_modules=["query"],
                         trainable_token_indices={"word_embeddings": [4, 9]})),
    "llama_dora": (LlamaForCausalLM, dict(SMALL, num_hidden_layers=2, tie_word_embeddings=True,
                                          attention_bias=True, pad_token_id=5),
                   dict(r=2, lora_alpha=3, use_dora=True,
                        target_modules=["q_proj", "v_proj", "down_proj", "embed_tokens",
                                        "lm_head"])),
    "llama_tokens": (LlamaForCausalLM, dict(SMALL, num_hidden_layers=2, tie_word_embeddings=True),
                     dict(r=2, lora_alpha=3, target_modules=["q_proj"],
                          trainable_token_indices=[3, 11])),
    "llama_embedding": (LlamaForCausalLM, dict(SMALL, num_hidden_layers=1,
                                               tie_word_embeddings=False),
                        dict(r=2, lora_alpha=3, target_modules=["embed_tokens", "lm_head", "o_proj"],
                             save_embedding=False)),
    "llama_tied": (LlamaForCausalLM, dict(SMALL, num_hidden_layers=1, tie_word_embeddings=True),
                   dict(r=2, lora_alpha=3, target_modules=["embed_tokens", "q_proj"],
                        ensure_weight_tying=True)),
    "bert_token_classifier": (BertForTokenClassification, dict(BERT, num_labels=4,
                                                               num_hidden_layers=1),
                              dict(r=2, lora_alpha=4, task_type=CLASSIFY_TOKENS, bias="all",
                                   target_modules=["key", "output.dense"])),
    "roberta_classifier": (RobertaForSequenceClassification,
                           dict(ROBERTA, num_labels=3, pad_token_id=5, hidden_act="relu"),
                           dict(r=2, lora_alpha=4, task_type=CLASSIFY, use_dora=True,
                                target_modules=["query", "position_embeddings"])),
    "roberta_language": (RobertaForMaskedLM, dict(ROBERTA, hidden_act="relu"),
                         dict(r=2, lora_alpha=4, bias="all",
                              target_modules=["value", "lm_head.dense", "lm_head.decoder"])),
    "xlm_roberta_tokens": (XLMRobertaForTokenClassification, dict(ROBERTA, num_labels=3,
                                                                  pad_token_id=0),
                           dict(r=2, lora_alpha=4, task_type=CLASSIFY_TOKENS,
                                target_modules=["query", "value"],
                                trainable_token_indices={"word_embeddings": [5, 9]})),
    "camembert_values": (CamembertForSequenceClassification, dict(ROBERTA, num_labels=1),
                         dict(r=2, lora_alpha=4, task_type=CLASSIFY,
                              target_modules=["intermediate.dense"])),
    "distilbert_classifier": (DistilBertForSequenceClassification,
                              dict(DISTILBERT, num_labels=3,
                                   problem_type="multi_label_classification"),
                              dict(r=2, lora_alpha=4, task_type=CLASSIFY, lora_bias=True,
                                   bias="lora_only", target_modules=["q_lin", "v_lin"])),
    "distilbert_language": (DistilBertForMaskedLM, dict(DISTILBERT, activation="relu"),
                            dict(r=2, lora_alpha=4, use_dora=True,
                                 target_modules=["v_lin", "lin2", "vocab_projector"])),
    "distilbert_tokens": (DistilBertForTokenClassification, dict(DISTILBERT, num_labels=4,
                                                                 pad_token_id=3),
                          dict(r=2, lora_alpha=4, task_type=CLASSIFY_TOKENS, use_rslora=True,
                               target_modules=["out_lin", "lin1"])),
    "gpt_neox_plain": (GPTNeoXForCausalLM, dict(NEOX, rope_parameters=QUARTER),
                       dict(r=2, lora_alpha=4, bias="all",
                            target_modules=["query_key_value", "dense_h_to_4h", "lm_head"])),
    "gpt_neox_serial": (GPTNeoXForCausalLM, dict(NEOX, use_parallel_residual=False,
                                                 attention_bias=False, tie_word_embeddings=True,
                                                 hidden_act="gelu_fast", rope_parameters=HALF),
                        dict(r=2, lora_alpha=4, use_dora=True,
                             target_modules=["query_key_value", "dense", "embed_in"])),
    "gpt_neox_classifier": (GPTNeoXForSequenceClassification,
                            dict(NEOX, num_labels=3, pad_token_id=3, num_hidden_layers=1,
                                 rope_parameters=dict(HALF, rope_type="linear", factor=2.0)),
                            dict(r=2, lora_alpha=4, task_type=CLASSIFY,
                                 target_modules=["query_key_value"])),
    "gpt_neox_tokens": (GPTNeoXForTokenClassification, dict(NEOX, num_labels=3,
                                                            num_hidden_layers=1),
                        dict(r=2, lora_alpha=4, task_type=CLASSIFY_TOKENS,
                             target_modules=["dense_4h_to_h"])),
}


# Decoders of the Llama kind, one of each family and each of its switches.
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
HEADS = dict(SMALL, num_hidden_layers=2, head_dim=12)
ROTARY_FACTORS = dict(short_factor=[1.0, 1.25, 1.5], long_factor=[1.0, 2.0, 4.0])
DECODERS = {
    "mistral": ("Mistral", dict(HEADS, sliding_window=4), dict(target_modules=ATTENTION)),
    "qwen2": ("Qwen2", dict(SMALL, num_hidden_layers=2, tie_word_embeddings=True),
              dict(target_modules=LINEARS, bias="all")),
    "qwen2_window": ("Qwen2", dict(SMALL, num_hidden_layers=2, use_sliding_window=True,
                                   sliding_window=5, max_window_layers=1),
                     dict(target_modules=ATTENTION)),
    "qwen3": ("Qwen3", HEADS, dict(target_modules=LINEARS, modules_to_save=["q_norm"])),
    "gemma": ("Gemma", HEADS, dict(target_modules=LINEARS, modules_to_save=["input_layernorm"])),
    "gemma2": ("Gemma2", dict(HEADS, sliding_window=4, query_pre_attn_scalar=10,
                              final_logit_softcapping=2.0, attn_logit_softcapping=1.5),
               dict(target_modules=LINEARS + ["embed_tokens"])),
    "gemma3": ("Gemma3Text", dict(HEADS, sliding_window=4, query_pre_attn_scalar=10,
                                  layer_types=["sliding_attention", "full_attention"]),
               dict(target_modules=ATTENTION, trainable_token_indices=[5, 7])),
    "phi3": ("Phi3", dict(SMALL, num_hidden_layers=2, pad_token_id=2, hidden_act="gelu"),
             dict(target_modules=["qkv_proj", "gate_up_proj", "down_proj"])),
    "phi3_long": ("Phi3", dict(SMALL, num_hidden_layers=1, pad_token_id=2, sliding_window=11,
                               original_max_position_embeddings=8,
                               rope_parameters=dict(rope_type="longrope", rope_theta=1e4,
                                                    partial_rotary_factor=0.75, **ROTARY_FACTORS)),
                  dict(target_modules=["qkv_proj", "o_proj"])),
    "granite": ("Granite", dict(SMALL, num_hidden_layers=2, embedding_multiplier=3.0,
                                logits_scaling=4.0, residual_multiplier=0.5,
                                attention_multiplier=0.2, mlp_bias=True),
                dict(target_modules=LINEARS)),
    "olmo2": ("Olmo2", dict(SMALL, num_hidden_layers=2),
              dict(target_modules=LINEARS, modules_to_save=["post_feedforward_layernorm"])),
    "mixtral": ("Mixtral", dict(SMALL, num_hidden_layers=1, num_local_experts=3),
                dict(target_modules=ATTENTION)),
    "qwen2_moe": ("Qwen2Moe", dict(SMALL, num_hidden_layers=2, num_experts=3,
                                   num_experts_per_tok=2, moe_intermediate_size=12,
                                   shared_expert_intermediate_size=12, mlp_only_layers=[1]),
                  dict(target_modules=["q_proj", "down_proj"])),
    "qwen3_moe": ("Qwen3Moe", dict(HEADS, num_experts=3, num_experts_per_tok=2,
                                   moe_intermediate_size=12, norm_topk_prob=True),
                  dict(target_modules=ATTENTION)),
}
EXPERTS = ("mixtral", "qwen2_moe", "qwen3_moe")


def decoder(name):
    """Model class and configuration of a case of DECODERS."""
    family, options, _ = DECODERS[name]
    model_class = getattr(transformers, family.removesuffix("Text") + "ForCausalLM")
    config_class = getattr(transformers, family + "Config")
    ids = dict(bos_token_id=0, eos_token_id=1)
    return model_class, config_class(**{**ids, "pad_token_id": 3, **options})


def clean(name):
    """Name of a live PEFT parameter as it stands in the file."""
    name = name.replace(".modules_to_save.default.", ".").replace(".default.", ".")
    name = name.removesuffix(".default")
    return name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        scale = 0.3 if parameter.dim() > 1 else 0.1
        noise = torch.randn(parameter.shape, generator=generator) * scale
        parameter.data.copy_(noise + (1.0 if "norm" in name else 0.0))


def gradients(model):
    return {"grad." + clean(name): parameter.grad.contiguous()
            for name, parameter in model.named_parameters() if parameter.requires_grad}


def llama_case(name, model_options, lora_options, seed):
    folder = ROOT / name
    torch.manual_seed(seed)
    base = LlamaForCausalLM(LlamaConfig(**{**COMMON, **model_options})).eval()
    randomise(base, seed)
    base.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(2, 64, (3, 21), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 13:] = 0
    prompt = ids[:1, :9]
    labels = ids.masked_fill(mask == 0, -100)
    labels[2, :6] = -100
    expected = {"input_ids": ids, "attention_mask": mask, "labels": labels,
                "prompt": prompt[0].clone()}
    with torch.no_grad():
        expected["logits"] = base(input_ids=ids).logits.contiguous()
        expected["masked_logits"] = base(input_ids=ids, attention_mask=mask).logits.contiguous()
        greedy = base.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40,
                               do_sample=False, eos_token_id=None, pad_token_id=0)
        expected["greedy"] = greedy[0, prompt.shape[1]:].contiguous()

    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **lora_options)).train()
    generator = torch.Generator().manual_seed(seed + 2)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    expected["loss"] = output.loss.detach().reshape(1)
    expected["adapted_logits"] = output.logits.detach().contiguous()
    expected.update(gradients(model))
    save_file(expected, folder / "expected.safetensors")


def decoder_case(name, seed):
    model_class, config = decoder(name)
    write_case("decoder_" + name, model_class, config,
               dict(dict(r=2, lora_alpha=3, task_type="CAUSAL_LM"), **DECODERS[name][2]), seed)


def generic_case(name, model_class, model_options, lora_options, seed):
    write_case(name, model_class, model_class.config_class(**model_options), lora_options, seed)


def write_case(name, model_class, config, lora_options, seed):
    folder = ROOT / name
    lora_options = dict(lora_options)
    save_embedding = lora_options.pop("save_embedding", "auto")
    torch.manual_seed(seed)
    base = model_class(config).eval()
    randomise(base, seed)
    base.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(3, 48, (3, 14), generator=generator)
    ids[0, 3] = 5  # a padding or patched token inside a row
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    padding = config.pad_token_id if config.pad_token_id is not None else 0
    ids = ids.masked_fill(mask == 0, padding)
    labels = ids.masked_fill(mask == 0, -100)
    inputs = {"input_ids": ids, "attention_mask": mask}
    has_types = getattr(config, "type_vocab_size", 0) > 1
    expected = {**inputs, "labels": labels}
    with torch.no_grad():
        expected["logits"] = base(**inputs).logits.contiguous()
        if has_types:
            types = torch.randint(0, 2, ids.shape, generator=generator)
            expected["token_type_ids"] = types
            expected["typed_logits"] = base(**inputs, token_type_ids=types).logits.contiguous()

    model = get_peft_model(base, LoraConfig(**lora_options))
    generator = torch.Generator().manual_seed(seed + 2)
    seen = set()
    for parameter in (p for p in model.parameters() if p.requires_grad):
        if id(parameter) not in seen:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.2
        seen.add(id(parameter))
    model.save_pretrained(folder / "adapter", save_embedding_layers=save_embedding)
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    with torch.no_grad():
        expected["adapted_logits"] = model.eval()(**inputs).logits.contiguous()
    task = lora_options.get("task_type")
    if task == CLASSIFY_TOKENS:
        classes = torch.randint(0, config.num_labels, ids.shape, generator=generator)
        labels = classes.masked_fill((mask == 0) | (ids % 4 == 1), -100)
        expected["labels"] = labels
    if task == CLASSIFY:
        y = torch.tensor([2, 0, 1])
        if config.num_labels == 1:
            y = torch.randn(3, generator=generator)
        elif config.problem_type == "multi_label_classification":
            y = torch.randint(0, 2, (3, config.num_labels), generator=generator).float()
        expected["y"] = y
        output = model.train()(**inputs, labels=y)
    else:
        output = model.train()(**inputs, labels=labels)
    output.loss.backward()
    expected["loss"] = output.loss.detach().reshape(1)
    expected.update(gradients(model))
    save_file(expected, folder / "expected.safetensors")


class Chain(torch.nn.Module):
    def __init__(self, final):
        super().__init__()
        self.fc1 = torch.nn.Linear(6, 9)
        self.fc2 = torch.nn.Linear(9, 7, bias=False)
        self.fc3 = torch.nn.Linear(7, 4)
        self.final = final

    def forward(self, x):
        x = torch.nn.functional.gelu(self.fc1(x))
        x = torch.nn.functional.gelu(self.fc2(x))
        return self.final(self.fc3(x))


def mlp_case(name, final_name, final, seed):
    folder = ROOT / name
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    base = Chain(final)
    save_file(base.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        '{"model_type": "mlp", "layers": ["fc1", "fc2", "fc3"], "hidden_sizes": [6, 9, 7, 4],\n'
        ' "activation": "gelu", "final_activation": "%s"}\n' % final_name)
    model = get_peft_model(base, LoraConfig(r=3, lora_alpha=6, target_modules=["fc1", "fc2"],
                                            modules_to_save=["fc3"]))
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data += torch.randn(parameter.shape) * 0.3
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    x, classes, values = torch.randn(11, 6), torch.randint(0, 4, (11,)), torch.randn(11, 4)
    expected = {"x": x, "classes": classes, "values": values}
    for kind, loss_of in (("classes", torch.nn.CrossEntropyLoss()), ("values", torch.nn.MSELoss())):
        model.zero_grad()
        output = model(x)
        loss = loss_of(output, classes if kind == "classes" else values)
        loss.backward()
        expected["output"] = output.detach()
        expected[kind + ".loss"] = loss.detach().reshape(1)
        expected.update({f"{kind}.{key}": value.clone() for key, value in gradients(model).items()})
    save_file(expected, folder / "expected.safetensors")


def shown_arguments(module):
    """What print(module) has between the parentheses; Conv1D has no extra_repr."""
    is_leaf = next(module.children(), None) is None
    return repr(module)[len(type(module).__name__) + 1:-1] if is_leaf else module.extra_repr()


def module_trees():
    gpt2 = dict(vocab_size=20, n_positions=16, n_embd=8, n_head=2, n_layer=2, bos_token_id=0,
                eos_token_id=0)
    bert = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=12, max_position_embeddings=16)
    distilbert = dict(vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=12,
                      max_position_embeddings=16)
    neox = dict(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=12, max_position_embeddings=16)
    models = {
        "gpt2": GPT2LMHeadModel(GPT2Config(**gpt2, resid_pdrop=0, attn_pdrop=0.0, n_inner=12)),
        "gpt2_classifier": GPT2ForSequenceClassification(
            GPT2Config(**gpt2, num_labels=3, activation_function="leaky_relu")),
        "bert": BertForMaskedLM(BertConfig(**bert, pad_token_id=None, hidden_act="gelu_new")),
        "bert_classifier": BertForSequenceClassification(BertConfig(**bert)),
        "bert_classifier_dropout": BertForSequenceClassification(
            BertConfig(**bert, num_labels=1, classifier_dropout=0.25, layer_norm_eps=1e-5)),
        "bert_tokens": BertForTokenClassification(BertConfig(**bert, num_labels=3)),
        "roberta": RobertaForMaskedLM(RobertaConfig(**bert, pad_token_id=2)),
        "roberta_classifier": RobertaForSequenceClassification(RobertaConfig(**bert)),
        "roberta_tokens": RobertaForTokenClassification(
            RobertaConfig(**bert, classifier_dropout=0.25)),
        "xlm_roberta": XLMRobertaForMaskedLM(XLMRobertaConfig(**bert)),
        "camembert_classifier": CamembertForSequenceClassification(CamembertConfig(**bert)),
        "gpt_neox": GPTNeoXForCausalLM(GPTNeoXConfig(**neox, attention_bias=False)),
        "gpt_neox_classifier": GPTNeoXForSequenceClassification(
            GPTNeoXConfig(**neox, hidden_dropout=0.25, num_labels=3)),
        "gpt_neox_tokens": GPTNeoXForTokenClassification(GPTNeoXConfig(**neox, hidden_act="relu")),
        "distilbert": DistilBertForMaskedLM(DistilBertConfig(**distilbert, activation="relu")),
        "distilbert_classifier": DistilBertForSequenceClassification(
            DistilBertConfig(**distilbert, seq_classif_dropout=0, num_labels=3)),
        "distilbert_tokens": DistilBertForTokenClassification(
            DistilBertConfig(**distilbert, dropout=0.25, pad_token_id=3)),
    }
    for name in DECODERS:
        if name not in EXPERTS:
            model_class, config = decoder(name)
            models[name] = model_class(config)
    trees = {}
    for name, model in models.items():
        model.config.architectures = [type(model).__name__]
        trees[name] = {"config": model.config.to_dict(),
                       "modules": [[path, type(module).__name__, shown_arguments(module)]
                                   for path, module in model.named_modules()]}
    path = ROOT.parent / "checkpoint" / "modules.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(trees, indent=0, sort_keys=True) + "\n")


def main():
    cases = {name: (lambda name=name, seed=10 * seed + 1: llama_case(name, *CASES[name], seed))
             for seed, name in enumerate(CASES)}
    cases["mlp_log_softmax"] = lambda: mlp_case("mlp_log_softmax", "log_softmax",
                                                torch.nn.LogSoftmax(dim=1), 71)
    cases["mlp_sigmoid"] = lambda: mlp_case("mlp_sigmoid", "sigmoid", torch.nn.Sigmoid(), 72)
    cases["mlp_none"] = lambda: mlp_case("mlp_none", "none", torch.nn.Identity(), 73)
    for seed, (name, case) in enumerate(GENERIC.items()):
        cases[name] = lambda name=name, case=case, seed=seed: generic_case(name, *case, 100 + seed)
    for seed, name in enumerate(DECODERS):
        cases["decoder_" + name] = lambda name=name, seed=seed: decoder_case(name, 200 + seed)
    cases["modules"] = module_trees
    for name in sys.argv[1:] or cases:
        cases[name]()


if __name__ == "__main__":
    main()

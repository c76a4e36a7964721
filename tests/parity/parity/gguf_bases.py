"""Models in GGUF files, written as llama.cpp's converter writes them, and imported again."""

from __future__ import annotations

import pathlib

import gguf
import torch
from peft import LoraConfig, get_peft_model

from parity import encoders
from parity.comparison import LOGITS_TOLERANCE, lora_logits, open_model, peft_logits
from parity.decoder_families import make_base
from parity.families import make_gpt2
from parity.harness import Context, assert_close, assert_equal, case

# What the tiny models of decoder_families have in the place of what no GGUF file tells.
AS_CONVERTED: dict[str, dict[str, object]] = {
    "gemma2": dict(query_pre_attn_scalar=32),
    "gemma3": dict(query_pre_attn_scalar=32, layer_types=None),
    "qwen2": {},
    "qwen3": {},
    "gemma": {},
    "phi3": {},
    "phi3_long": {},
    "granite": {},
    "olmo2": {},
    "mixtral": {},
    "qwen2_moe": dict(mlp_only_layers=[]),
    "qwen3_moe": {},
}
ARCHITECTURES = {
    "phi3_long": "PHI3", "granite": "GRANITE", "mixtral": "LLAMA", "qwen2_moe": "QWEN2MOE", "qwen3_moe": "QWEN3MOE",
    "gpt_neox": "GPTNEOX",
}  # fmt: skip


def rotary_pairs(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """The two halves of each head side by side."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def add_settings(writer: gguf.GGUFWriter, config: object, family: str) -> None:
    """The metadata that the converter writes."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if family == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size if config.n_inner is None else config.n_inner)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head * rope.get("partial_rotary_factor", 1)))
    if family == "gpt_neox":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_parallel_residual(config.use_parallel_residual)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if head != config.hidden_size // config.num_attention_heads:
        writer.add_key_length(head)
        writer.add_value_length(head)
    if getattr(config, "sliding_window", None) and family not in ("qwen2", "qwen3"):
        writer.add_sliding_window(config.sliding_window)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if family == "phi3_long":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    if family == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if experts := getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if getattr(config, "moe_intermediate_size", None):
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if getattr(config, "shared_expert_intermediate_size", None):
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)


def converted(name: str, value: torch.Tensor, config: object, family: str) -> torch.Tensor:
    """What the converter does to a tensor."""
    heads = config.num_attention_heads
    if family in ("granite", "mixtral") and ".q_proj." in name:
        return rotary_pairs(value, heads)
    if family in ("granite", "mixtral") and ".k_proj." in name:
        return rotary_pairs(value, config.num_key_value_heads)
    if family.startswith("gemma") and name.endswith("norm.weight"):
        return value + 1
    if family == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return value.T
    if family == "gpt_neox" and ".query_key_value." in name:
        thirds = value.reshape(heads, 3, value.shape[0] // heads // 3, *value.shape[1:])
        return thirds.swapaxes(0, 1).reshape(value.shape)
    return value


def write_gguf(model: torch.nn.Module, family: str, path: pathlib.Path) -> None:
    config = model.config
    architecture = getattr(gguf.MODEL_ARCH, ARCHITECTURES.get(family, family.upper()))
    names = gguf.TensorNameMap(architecture, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    add_settings(writer, config, family)
    written = {}
    for name, value in model.state_dict().items():
        if "lm_head" in name and (config.tie_word_embeddings or family == "gpt2"):
            continue
        if ".experts.gate_up_proj" in name:
            gate, up = value.chunk(2, dim=1)
            prefix = names.get_name(name.rsplit(".mlp", 1)[0] + ".mlp.gate").removesuffix("ffn_gate_inp")
            written[prefix + "ffn_gate_exps.weight"] = gate
            written[prefix + "ffn_up_exps.weight"] = up
        elif ".experts.down_proj" in name:
            prefix = names.get_name(name.rsplit(".mlp", 1)[0] + ".mlp.gate").removesuffix("ffn_gate_inp")
            written[prefix + "ffn_down_exps.weight"] = value
        else:
            target = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert target is not None, f"{name} has no name in a GGUF file"
            written[target] = converted(name, value, config, family)
    if family == "phi3_long":
        for kind in ("long", "short"):
            written[f"rope_factors_{kind}.weight"] = torch.tensor(config.rope_parameters[f"{kind}_factor"])
    for name, value in written.items():
        writer.add_tensor(name, value.float().contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_import(context: Context, family: str, base: pathlib.Path) -> None:
    model = open_model(base)
    write_gguf(model, family, context.folder / "model.gguf")
    context.run("init-base", "--from", "model.gguf", "-o", "imported")
    imported = open_model(context.folder / "imported")
    targets = r".*(o_proj|c_attn|query_key_value)"
    peft = get_peft_model(model, LoraConfig(target_modules=targets, task_type="CAUSAL_LM"))
    peft.save_pretrained(context.folder / "adapter")
    inputs = {"input_ids": torch.randint(4, model.config.vocab_size, (2, 40))}
    theirs = peft_logits(peft, inputs)
    assert_equal("class", type(imported).__name__, type(peft.base_model.model).__name__)
    of_import = assert_close("logits of transformers on the import", peft_logits(imported, inputs), theirs, LOGITS_TOLERANCE)
    ours = assert_close(
        "logits", lora_logits(context, "adapter", "imported", inputs), theirs, LOGITS_TOLERANCE
    )
    context.note(f"logits of the import differ by {ours:.1e}, those of transformers on it by {of_import:.1e}")


def add_case(family: str) -> None:
    def check(context: Context) -> None:
        check_import(context, family, make_base(context, family, **AS_CONVERTED[family]))

    check.__name__ = f"gguf_{family}"
    case(check)


for one in AS_CONVERTED:
    add_case(one)


@case
def gguf_gpt2(context: Context) -> None:
    check_import(context, "gpt2", make_gpt2(context))


@case
def gguf_gpt_neox(context: Context) -> None:
    check_import(context, "gpt_neox", encoders.make_base(context, "gpt_neox", "language"))

#!/usr/bin/env python3
"""Writes the reference files under tests/golden with the real Python libraries.

Usage: make_fixtures.py OUTPUT_DIRECTORY [SECTION...]

Every section writes into OUTPUT_DIRECTORY/SECTION and gives the same bytes each time. The files in
tests/golden were made with safetensors 0.8.0, torch 2.13.0, transformers 5.23.0 and gguf 0.19.0.
"""

import json
import os
import random
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

# Named as the file spells them: the test looks the type up by the first part of the tensor's name.
TORCH_DTYPES = {
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
    "F32": "float32",
    "U32": "uint32",
    "I32": "int32",
    "BF16": "bfloat16",
    "F16": "float16",
    "U16": "uint16",
    "I16": "int16",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def patterned(dtype, shape):
    """A tensor whose byte i is 7 i + 3 (bool: the lowest bit of that)."""
    import torch

    count = 1
    for extent in shape:
        count *= extent
    size = count * torch.empty(0, dtype=dtype).element_size()
    values = [(7 * i + 3) % 256 for i in range(size)]
    if dtype == torch.bool:
        values = [value & 1 for value in values]
    return torch.tensor(values, dtype=torch.uint8).view(dtype).reshape(shape)


def make_safetensors(directory):
    """Files of safetensors.torch.save_file, one property each."""
    import torch
    from safetensors.torch import save_file

    def every_dtype(shape):
        # Names in the opposite order of the types, so that the order shows what comes first.
        return {
            f"{name}.{99 - i}": patterned(getattr(torch, torch_name), shape)
            for i, (name, torch_name) in enumerate(TORCH_DTYPES.items())
        }

    odd_names = [
        "F32.layers.10",
        "F32.layers.2",
        'F32."quoted"\\back/slash',
        "F32.\x00\x01\x08\t\n\x0b\x0c\r\x1f\x7f",
        "F32.\u00e9\u4e2d\u6587\U0001f600\u2028",
        "F32.",
        "F32. a",
    ]
    files = {
        "dtypes": (every_dtype([2, 3]), None),
        "scalars": (every_dtype([]), None),
        "empties": (every_dtype([2, 0, 3]), {"format": "pt"}),
        "odd_names": ({name: patterned(torch.float32, [1]) for name in odd_names}, {"format": "pt"}),
        "no_tensors": ({}, {"format": "pt"}),
        "empty_metadata": ({"F32.a": patterned(torch.float32, [3])}, {}),
        "odd_metadata": ({"F32.a": patterned(torch.float32, [3])}, {'k"\n\u00e9': "v\\\t\u4e2d"}),
    }
    # One name for each length of padding.
    for length in range(8):
        files[f"padding_{length}"] = ({"F32." + "x" * length: patterned(torch.float32, [2])}, None)
    for name, (tensors, metadata) in files.items():
        save_file(tensors, directory / f"{name}.safetensors", metadata=metadata)


def make_sharded(directory):
    """Sharded models of transformers, and how the splitter numbers made-up state dicts."""
    import torch
    from huggingface_hub import split_torch_state_dict_into_shards
    from transformers import LlamaConfig, LlamaForCausalLM

    for name, tied, limit in [("tied", True, 1500), ("untied", False, 500), ("whole", True, 10**6)]:
        config = LlamaConfig(
            vocab_size=24,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=tied,
        )
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(patterned(torch.uint8, list(parameter.shape)).float())
        model.save_pretrained(directory / name, max_shard_size=limit)
        for extra in ("config.json", "generation_config.json"):
            (directory / name / extra).unlink()
        # The order in which the model lists its tensors decides who goes to which shard.
        names = [n for n in model.state_dict() if not (tied and n == "lm_head.weight")]
        (directory / name / "order.json").write_text(json.dumps(names))

    generator = random.Random(7)
    cases = []
    for _ in range(40):
        limit = generator.choice([16, 40, 100])
        sizes = [generator.choice([0, 1, 3, 4, 9, 10, 25, 26, 60]) for _ in range(9)]
        state = {f"t{i}": torch.zeros(size) for i, size in enumerate(sizes)}
        split = split_torch_state_dict_into_shards(
            state, filename_pattern="model{suffix}.safetensors", max_shard_size=limit
        )
        cases.append(
            {
                "limit": limit,
                "sizes": sizes,
                "weight_map": split.tensor_to_filename,
                "total_size": split.metadata["total_size"],
            }
        )
    (directory / "splits.json").write_text(json.dumps(cases))


# What torch saves and a state dict cannot hold; the zip form alone is enough to show that.
REFUSED = ("conjugate", "complex128", "sparse", "hostile")


def make_torch(directory):
    """Files of torch.save, one property each.

    The legacy files name storages by their address, so those alone differ from run to run.
    """
    import argparse
    import collections

    import torch

    class Command:
        def __reduce__(self):
            return os.system, ("touch executed",)

    def save(name, value, **options):
        torch.save(value, directory / f"{name}.pt", **options)
        if name not in REFUSED and not options:
            path = directory / f"legacy_{name}.pt"
            torch.save(value, path, _use_new_zipfile_serialization=False)

    def every_dtype(shape):
        return {
            name: patterned(getattr(torch, torch_name), shape)
            for name, torch_name in TORCH_DTYPES.items()
        }

    def with_attribute(tensor):
        tensor.note = "kept by Python, dropped by lora"
        return tensor

    save("dtypes", every_dtype([2, 3]))
    save("scalars", every_dtype([]))
    save("empties", every_dtype([2, 0, 3]))

    grid = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    save(
        "views",
        {
            "whole": grid,
            "tied": grid,
            "rows": grid[1:],
            "transposed": grid.t(),
            "same_transposed": grid.t(),
            "columns": grid[:, ::2],
            "expanded": grid[:1].expand(5, 4),
            "element": grid[1, 2],
        },
    )

    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape))
    state = model.state_dict()
    save("state_dict", collections.OrderedDict((k, v.clone()) for k, v in state.items()))
    torch.save(state, directory / "metadata.pt")
    save(
        "nested",
        {
            "epoch": 3,
            "model": dict(state, step=7),
            "optimizer": optimizer.state_dict(),
            "best": None,
            "lr": 0.5,
            "large": 2**40,
            "huge": 2**80,
            "negative": -70000,
            "history": [1, "two", (3.0, True)],
            "shape": torch.Size([1, 2]),
            "dtype": torch.bfloat16,
            "device": torch.device("cpu"),
            "done": {1, 2},
            "raw": b"\xff",
            "counts": collections.Counter("aab"),
        },
    )
    save(
        "parameters",
        {
            "plain": torch.nn.Parameter(grid.clone()),
            "parameter_with_attribute": with_attribute(torch.nn.Parameter(grid.clone())),
            "tensor_with_attribute": with_attribute(grid.clone()),
        },
    )
    save("protocol4", {"a": grid, "b": grid[1:]}, pickle_protocol=4)
    save("protocol5", {"a": grid, "b": grid[1:]}, pickle_protocol=5)
    save("conjugate", {"a": torch.ones(2, dtype=torch.complex64).conj()})
    save("complex128", {"a": torch.ones(2, dtype=torch.complex128)})
    save("sparse", {"a": torch.eye(2).to_sparse()})
    save("hostile", {"a": grid, "b": Command(), "c": argparse.Namespace(x=1)})


# Where a block keeps its f16 scales, which must stay finite to be compared.
GGUF_SCALES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
}


def make_gguf(directory):
    """Random blocks of every storage type, written by the package gguf and widened by it."""
    import gguf
    import numpy
    from safetensors.numpy import save_file

    numbers = numpy.random.default_rng(11)
    writer = gguf.GGUFWriter(directory / "blocks.gguf", "llama")
    widened = {}
    for name, places in GGUF_SCALES.items():
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = numbers.integers(0, 256, (3, 512 // values, size), dtype=numpy.uint8)
        for place in places:
            scales = numbers.normal(0, 0.1, blocks.shape[:2]).astype(numpy.float16)
            blocks[:, :, place : place + 2] = scales[..., None].view(numpy.uint8)
        rows = blocks.reshape(3, -1)
        writer.add_tensor(f"{name}.weight", rows, raw_dtype=kind)
        widened[f"{name}.weight"] = gguf.dequantize(rows, kind)
    plain = numbers.normal(size=(2, 5)).astype(numpy.float32)
    for name, kind in (("f32", numpy.float32), ("f16", numpy.float16)):
        writer.add_tensor(f"{name}.weight", plain.astype(kind))
        widened[f"{name}.weight"] = plain.astype(kind)
    halves = gguf.quantize(plain, gguf.GGMLQuantizationType.BF16)
    writer.add_tensor("bf16.weight", halves, raw_dtype=gguf.GGMLQuantizationType.BF16)
    widened["bf16.weight"] = gguf.dequantize(halves, gguf.GGMLQuantizationType.BF16)
    writer.add_name("all kinds of values")
    writer.add_uint8("a.u8", 200)
    writer.add_int8("a.i8", -100)
    writer.add_uint16("a.u16", 60000)
    writer.add_int16("a.i16", -30000)
    writer.add_uint32("a.u32", 4000000000)
    writer.add_int32("a.i32", -2000000000)
    writer.add_uint64("a.u64", 2**62)
    writer.add_int64("a.i64", -(2**62))
    writer.add_float32("a.f32", 0.5)
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_array("a.texts", ["", "one", "zw\u00f6lf"])
    writer.add_array("a.integers", [3, -1, 7])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(widened, directory / "blocks.safetensors")


def make_gguf_sentencepiece(directory):
    """The tokenizer of a Llama 2 as llama.cpp keeps it, and what transformers makes of it."""
    import gguf
    from transformers import AutoTokenizer

    text = Path(__file__).parent.parent / "tests/golden/text/llama2.tokenizer.json"
    model = json.loads(text.read_text())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get) + ["<user>"]
    ranks = {}
    for rank, pair in enumerate(model["merges"]):
        ranks.setdefault("".join(pair), rank)
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3, "<user>": 4}
    writer = gguf.GGUFWriter(directory / "sentencepiece.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    # Tokens in pairs of the same score: the lengths of their parts decide.
    writer.add_token_scores(
        [-float(ranks[t] // 2) if t in ranks else 0.0 if t in kinds or t.startswith("<0x") else -1e3 - i
         for i, t in enumerate(tokens)]
    )
    writer.add_token_types([kinds.get(t, 6 if t.startswith("<0x") else 1) for t in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_eos_token(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    rebuilt = AutoTokenizer.from_pretrained(directory, gguf_file="sentencepiece.gguf")
    document = json.loads(rebuilt.backend_tokenizer.to_str())
    (directory / "sentencepiece.tokenizer.json").write_text(
        json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    )


def make_gguf_model(directory):
    """A tiny Llama as a GGUF file, and what transformers makes of it."""
    import gguf
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    text = Path(__file__).parent.parent / "tests/golden/text/smollm.tokenizer.json"
    tokenizer = json.loads(text.read_text())
    names = {token: place for token, place in tokenizer["model"]["vocab"].items()}
    # GGUF says of a token that it is special, not how it takes the spaces around it.
    special = {entry["content"]: entry["id"] for entry in tokenizer["added_tokens"] if entry["special"]}
    tokens = sorted({**names, **special}, key={**names, **special}.get)
    torch.manual_seed(3)
    heads, kv_heads = 4, 2
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_theta=50000.0,
        attention_bias=False,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    writer = gguf.GGUFWriter(directory / "llama.gguf", "llama")
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    modules = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    kinds = {"self_attn.q_proj": "Q8_0", "self_attn.k_proj": "Q4_0", "mlp.down_proj": "Q5_1"}
    for name, value in model.state_dict().items():
        if name in outer:
            writer.add_tensor(outer[name], value.numpy())
            continue
        _, _, layer, rest = name.split(".", 3)
        module = rest.removesuffix(".weight")
        count = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(module)
        if count:  # rotary pairs side by side, as llama.cpp has them
            value = value.view(count, 2, -1, value.shape[1]).transpose(1, 2).reshape(value.shape)
        target = f"blk.{layer}.{modules[module]}.weight"
        value = value.contiguous().numpy()
        if module in kinds:
            kind = gguf.GGMLQuantizationType[kinds[module]]
            writer.add_tensor(target, gguf.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = AutoModelForCausalLM.from_pretrained(
        directory, gguf_file="llama.gguf", dtype=torch.float32
    )
    save_file(
        {name: value.contiguous() for name, value in loaded.state_dict().items()},
        directory / "llama.safetensors",
    )


SECTIONS = {
    "safetensors": make_safetensors,
    "sharded": make_sharded,
    "torch": make_torch,
    "gguf": make_gguf,
    "gguf_model": make_gguf_model,
    "gguf_tokenizer": make_gguf_sentencepiece,
}


def main(arguments):
    if not arguments or any(name not in SECTIONS for name in arguments[1:]):
        sys.exit(f"usage: make_fixtures.py OUTPUT_DIRECTORY [{'|'.join(SECTIONS)}]...")
    for name in arguments[1:] or SECTIONS:
        directory = Path(arguments[0]) / name
        directory.mkdir(parents=True, exist_ok=True)
        SECTIONS[name](directory)


if __name__ == "__main__":
    main(sys.argv[1:])

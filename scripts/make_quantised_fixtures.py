#!/usr/bin/env python3
"""Golden numbers of quantised bases, under tests/golden/engine/quantised.

nf4.safetensors holds values with the codes, scales and widened values that bitsandbytes gives them
(blocks of 64, no double quantisation). losses.safetensors holds, for some cases of
make_engine_fixtures.py, the losses of a few AdamW steps that PEFT takes from the case's adapter
when every matrix of the base's layers is replaced by what nf4 (bitsandbytes) or int8 (computed
here as docs/design.md describes it) leaves of it. Needs torch, transformers, peft, safetensors and
bitsandbytes.
"""

import pathlib

import torch
import transformers
from bitsandbytes import functional
from peft import PeftModel
from safetensors.torch import load_file, save_file

ENGINE = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "engine"
ROOT = ENGINE / "quantised"
CASES = {
    "llama_plain": "LlamaForCausalLM",
    "llama_saved": "LlamaForCausalLM",
    "llama_dora": "LlamaForCausalLM",
    "gpt2_plain": "GPT2LMHeadModel",
    "gpt2_dora": "GPT2LMHeadModel",
    "decoder_mixtral": "MixtralForCausalLM",
    "decoder_phi3": "Phi3ForCausalLM",
    "bert_language": "BertForMaskedLM",
}
STEPS = 4


def nf4(matrix):
    codes, state = functional.quantize_4bit(matrix.contiguous(), blocksize=64, quant_type="nf4")
    # Not dequantize_4bit: on CPUs it takes wrong scales where rows are no multiple of a block (0.50.2).
    both = codes.reshape(-1)
    each = torch.stack([both >> 4, both & 15], 1).reshape(-1)[:matrix.numel()].long()
    scales = state.absmax.repeat_interleave(64)[:matrix.numel()]
    values = functional.get_4bit_type("nf4", device="cpu")[each] * scales
    if matrix.dim() > 1 and matrix.shape[-1] % 64 == 0:
        assert torch.equal(values.reshape(matrix.shape), functional.dequantize_4bit(codes, state))
    return codes, state.absmax, values.reshape(matrix.shape)


def int8(matrix):
    values = matrix.reshape(-1)
    padded = torch.nn.functional.pad(values, (0, -len(values) % 128)).reshape(-1, 128)
    scales = padded.abs().amax(1, keepdim=True) / 127
    codes = (padded / scales.clamp_min(1e-38)).round().clamp(-127, 127)
    return (codes * scales).reshape(-1)[:len(values)].reshape(matrix.shape)


def vectors():
    generator = torch.Generator().manual_seed(1)
    values = functional.get_4bit_type("nf4", device="cpu")
    midpoints = (values[:-1] + values[1:]) / 2
    ties = torch.cat([midpoints, torch.tensor([1.0, -1.0, 0.0]), midpoints * 0.5, torch.zeros(31)])
    samples = {
        "whole": torch.randn(8, 64, generator=generator) * 0.02,
        "crossing": torch.randn(6, 48, generator=generator),
        "short": torch.randn(3, 50, generator=generator) * 5,
        "odd": torch.randn(5, 31, generator=generator),
        "ties": ties,
        "small": torch.cat([torch.randn(64, generator=generator) * 1e-30, torch.zeros(64),
                            torch.randn(64, generator=generator)]),
    }
    tensors = {}
    for name, values in samples.items():
        codes, scales, widened = nf4(values)
        tensors[name + ".values"] = values
        tensors[name + ".codes"] = codes.reshape(-1)
        tensors[name + ".scales"] = scales
        tensors[name + ".widened"] = widened.contiguous()
    save_file(tensors, ROOT / "nf4.safetensors")


def is_layer_matrix(name, value):
    return any(part.isdigit() for part in name.split(".")) and value.dim() > 1 and \
        "gate.weight" not in name


def quantise_layers(model, quantise):
    modules = dict(model.named_modules())
    for name, value in model.named_parameters():
        if not is_layer_matrix(name, value):
            continue
        owner = modules[name.rpartition(".")[0]]
        is_transposed = isinstance(owner, transformers.pytorch_utils.Conv1D)
        matrix = value.data.t() if is_transposed else value.data
        rest = quantise(matrix.reshape(-1, matrix.shape[-1]).contiguous()).reshape(matrix.shape)
        value.data.copy_(rest.t() if is_transposed else rest)


def losses(name, model_class, quantise):
    expected = load_file(ENGINE / name / "expected.safetensors")
    base = getattr(transformers, model_class).from_pretrained(ENGINE / name, dtype=torch.float32)
    quantise_layers(base, quantise)
    model = PeftModel.from_pretrained(base, ENGINE / name / "adapter", is_trainable=True).train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2,
                                  weight_decay=0)
    result = []
    for _ in range(STEPS):
        output = model(input_ids=expected["input_ids"],
                       attention_mask=expected["attention_mask"], labels=expected["labels"])
        result.append(output.loss.item())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    return torch.tensor(result, dtype=torch.float64)


def main():
    ROOT.mkdir(exist_ok=True)
    vectors()
    tensors = {}
    for name, model_class in CASES.items():
        tensors[name + ".nf4"] = losses(name, model_class, lambda matrix: nf4(matrix)[2])
        tensors[name + ".int8"] = losses(name, model_class, int8)
    save_file(tensors, ROOT / "losses.safetensors")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes tests/golden/adapter/merged: what PEFT's merge_and_unload makes of tied and saved embeddings.

Takes the adapters and bases of tests/golden/adapter/kinds. Needs peft==0.21.2, transformers>=5,
torch and safetensors:

    python scripts/make_merged_fixtures.py
"""

import pathlib
import shutil

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

ADAPTERS = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/adapter"

# Adapter, base, class of the model.
CASES = [
    ("saved_embeddings_resized", "llama", AutoModelForCausalLM),
    ("tied_head_only", "llama_tied", AutoModelForCausalLM),
    ("tied_independent", "llama_tied", AutoModelForCausalLM),
    ("tied_saved", "llama_tied", AutoModelForCausalLM),
    ("tied_saved_bert", "bert", AutoModelForMaskedLM),
    ("tied_together", "llama_tied", AutoModelForCausalLM),
    ("tokens_tied", "llama_tied", AutoModelForCausalLM),
]


def merge(name, base, model_class):
    adapter = ADAPTERS / "kinds/adapters" / name
    model = model_class.from_pretrained(ADAPTERS / "kinds/bases" / base, dtype=torch.float32)
    for key, tensor in load_file(adapter / "adapter_model.safetensors").items():
        if key.endswith("embed_tokens.weight") and len(tensor) != model.config.vocab_size:
            model.resize_token_embeddings(len(tensor))
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    output = ADAPTERS / "merged" / name
    shutil.rmtree(output, ignore_errors=True)
    merged.save_pretrained(output)
    (output / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    for case in CASES:
        merge(*case)

"""make_billion.py FOLDER: a random Llama of 1.1 billion parameters in bf16 (2.2 GB) and an adapter of q and v, r 16."""

import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

folder = pathlib.Path(sys.argv[1])
config = LlamaConfig(
    vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
    num_key_value_heads=4, dtype="bfloat16",
)  # fmt: skip
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
model = LlamaForCausalLM(config)
model.save_pretrained(folder / "billion")
torch.set_default_dtype(torch.float32)
settings = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
get_peft_model(model, settings).save_pretrained(folder / "billion-adapter")

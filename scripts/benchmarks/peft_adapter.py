"""Saves an adapter of rank 4 on SmolLM2: peft_adapter.py MODEL OUTPUT [TARGETS], by default on every
linear layer (about 5 MB)."""

import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

torch.manual_seed(0)
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
targets = sys.argv[3] if len(sys.argv) > 3 else "all-linear"
config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=targets, init_lora_weights=False)
get_peft_model(base, config).save_pretrained(sys.argv[2])

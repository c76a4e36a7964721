"""Saves a fresh all-linear adapter of rank 4 on SmolLM2 (about 5 MB): peft_adapter.py MODEL OUTPUT."""

import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

torch.manual_seed(0)
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
get_peft_model(base, config).save_pretrained(sys.argv[2])

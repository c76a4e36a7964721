"""peft_merge_whole.py BASE ADAPTER OUTPUT: loads both with PEFT, merges, saves and flushes to the disk."""

import os
import pathlib
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, adapter, output = sys.argv[1:4]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(output)
for file in pathlib.Path(output).iterdir():
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())

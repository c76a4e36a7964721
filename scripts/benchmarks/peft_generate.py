"""usage: peft_generate.py BASE ADAPTER PROMPT TOKENS: prints the seconds of the last tokens as JSON."""

import json
import sys
import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base, adapter, prompt = sys.argv[1:4]
tokens = int(sys.argv[4])
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, adapter).eval()
inputs = AutoTokenizer.from_pretrained(base)(prompt, return_tensors="pt")


def seconds(count: int) -> float:
    started = time.perf_counter()
    model.generate(**inputs, do_sample=False, min_new_tokens=count, max_new_tokens=count)
    return time.perf_counter() - started


seconds(1)
first = seconds(1)
print(json.dumps({"seconds": seconds(tokens + 1) - first}))

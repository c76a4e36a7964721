"""The peer of `lora train`: MODEL TEXT f32|bf16 TARGETS BATCH SEQ_LEN STEPS; prints step times."""

import json
import os
import sys
import time

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

source, text_file, dtype, targets = sys.argv[1:5]
batch, seq_len, steps = map(int, sys.argv[5:8])
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(
    source, dtype={"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
)
selected = targets if targets == "all-linear" else targets.split(",")
model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=selected))
with open(text_file, encoding="utf-8") as file:
    ids = AutoTokenizer.from_pretrained(source)(file.read())["input_ids"]
count = len(ids) // seq_len
blocks = torch.tensor(ids[: count * seq_len]).view(count, seq_len)
trainable = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trainable, lr=2e-4, weight_decay=0)
model.train()
seconds = []
for step in range(steps):
    started = time.perf_counter()
    rows = blocks[[(step * batch + i) % count for i in range(batch)]]
    loss = model(input_ids=rows, labels=rows).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    loss.item()
    seconds.append(time.perf_counter() - started)
print(json.dumps({"step_seconds": seconds, "loss": loss.item()}))

"""The peer of `lora train`: MODEL DATA f32|bf16 TARGETS BATCH SEQ_LEN STEPS; prints step times.

DATA is a text, cut into blocks, or a .jsonl of prompts and completions: batches of BATCH lines in a random order,
padded to the longest of them, with loss on the completions.
"""

import json
import os
import sys
import time

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch.nn.utils.rnn import pad_sequence
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
tokenizer = AutoTokenizer.from_pretrained(source)


def blocks_of_text():
    with open(text_file, encoding="utf-8") as file:
        ids = tokenizer(file.read())["input_ids"]
    count = len(ids) // seq_len
    blocks = torch.tensor(ids[: count * seq_len]).view(count, seq_len)
    for step in range(steps):
        rows = blocks[[(step * batch + i) % count for i in range(batch)]]
        yield {"input_ids": rows, "labels": rows}


def padded_lines():
    with open(text_file, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    order = torch.randperm(len(lines)).tolist()
    for step in range(steps):
        ids, labels = [], []
        for line in (lines[i] for i in order[step * batch : (step + 1) * batch]):
            prompt = tokenizer(line["prompt"])["input_ids"]
            completion = tokenizer(line["completion"] + tokenizer.eos_token)["input_ids"]
            ids.append(torch.tensor((prompt + completion)[:seq_len]))
            labels.append(torch.tensor(([-100] * len(prompt) + completion)[:seq_len]))
        lengths = torch.tensor([len(row) for row in ids])
        yield {
            "input_ids": pad_sequence(ids, batch_first=True),
            "attention_mask": (torch.arange(int(lengths.max()))[None, :] < lengths[:, None]).long(),
            "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        }


batches = list(padded_lines() if text_file.endswith(".jsonl") else blocks_of_text())
trainable = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trainable, lr=2e-4, weight_decay=0)
model.train()
seconds = []
for inputs in batches:
    started = time.perf_counter()
    loss = model(**inputs).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    loss.item()
    seconds.append(time.perf_counter() - started)
result = {
    "step_seconds": seconds,
    "loss": loss.item(),
    "supervised": [int((inputs["labels"][:, 1:] != -100).sum()) for inputs in batches],
    "fill": [float(inputs["attention_mask"].float().mean()) for inputs in batches if "attention_mask" in inputs],
}
print(json.dumps(result), flush=True)

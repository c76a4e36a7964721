"""tune_linears.py MODEL OUT: a few steps of AdamW on every linear layer but the head, on this project's documents."""

import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

source, output = sys.argv[1:3]
torch.manual_seed(0)
model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(source)
docs = pathlib.Path(__file__).resolve().parents[2] / "docs"
text = "".join(path.read_text() for path in sorted(docs.glob("*.md")))[:40000]
ids = tokenizer(text, return_tensors="pt").input_ids[0]
for name, parameter in model.named_parameters():
    parameter.requires_grad_("_proj" in name)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-5)
for step in range(12):
    batch = ids[step * 256 : (step + 1) * 256].view(2, 128)
    model(input_ids=batch, labels=batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
model.save_pretrained(output)
tokenizer.save_pretrained(output)

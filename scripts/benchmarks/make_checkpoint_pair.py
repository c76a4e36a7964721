"""Writes two checkpoints of 1 GB in BF16 that differ everywhere: make_checkpoint_pair.py A B."""

import sys

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
first = {f"layers.{i}.weight": torch.randn(4096, 4096) * 0.02 for i in range(30)}
second = {name: value + torch.randn_like(value) * 1e-4 for name, value in first.items()}
for path, tensors in zip(sys.argv[1:], (first, second)):
    save_file({name: value.to(torch.bfloat16) for name, value in tensors.items()}, path)

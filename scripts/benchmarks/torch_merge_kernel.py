"""torch_merge_kernel.py SIZE RANK ROUNDS: seconds of torch.addmm and a cast for the same merge, the best of some rounds."""

import sys
import time

import torch

size, rank, rounds = map(int, sys.argv[1:4])
weight = (torch.rand(size, size) * 0.1 - 0.05).bfloat16()
a, b = torch.randn(rank, size) * 0.02, torch.randn(size, rank) * 0.02
best = float("inf")
with torch.inference_mode():
    for _ in range(rounds):
        started = time.perf_counter()
        torch.addmm(weight.float(), b, a, alpha=2.0).bfloat16()
        best = min(best, time.perf_counter() - started)
print(best)

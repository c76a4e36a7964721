"""Prints the best rate of LibTorch's matrix products at the shapes of a training step, in FLOP a second, as JSON."""

import json
import time

import torch

SHAPES = [(1024, 576, 576), (1024, 576, 1536), (1024, 1536, 576), (1024, 576, 3072), (256, 576, 49152)]


def rate(rows: int, inner: int, columns: int, dtype: torch.dtype) -> float:
    x = torch.randn(rows, inner).to(dtype)
    weight = torch.randn(columns, inner).to(dtype)
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * columns / best


with torch.inference_mode():
    peaks = {
        name: max(rate(*shape, dtype) for shape in SHAPES)
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16))
    }
print(json.dumps(peaks))

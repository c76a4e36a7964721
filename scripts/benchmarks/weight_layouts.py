"""What other layouts of frozen weights would bring to the products of a step: packed for oneDNN, and concatenated.

Prints a line a shape: rows x inputs x outputs, milliseconds of the product with the weight as it lies in the file, of the
packed one, and for concatenated weights those of one product against the sum of its parts."""

import statistics
import time

import torch

ROWS = 1024
SHAPES = {"q, o": (576, 576), "k, v": (576, 192), "gate, up": (576, 1536), "down": (1536, 576)}
FUSED = {"q + k + v": ("q, o", "k, v", "k, v"), "gate + up": ("gate, up", "gate, up")}
HEAD = (256, 576, 49152)


def milliseconds(*functions) -> list[float]:
    """Medians of interleaved calls."""
    taken = [[] for _ in functions]
    for turn in range(25):
        for function, times in zip(functions, taken):
            started = time.perf_counter()
            function()
            if turn >= 5:
                times.append((time.perf_counter() - started) * 1e3)
    return [statistics.median(times) for times in taken]


def packed_product(x, weight):
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, x.shape[0])
    return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def plain_product(x, weight):
    out = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype)
    return lambda: torch.mm(x, weight.t(), out=out)


def several(functions):
    return lambda: [function() for function in functions]


torch.set_grad_enabled(False)
for dtype in (torch.float32, torch.bfloat16):
    shapes = {name: (ROWS, *shape) for name, shape in SHAPES.items()} | {"head": HEAD}
    for name, (rows, inputs, outputs) in shapes.items():
        x, weight = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        plain, packed = milliseconds(plain_product(x, weight), packed_product(x, weight))
        print(f"{dtype} {name:10} {rows} x {inputs} x {outputs}: plain {plain:7.3f} ms, packed {packed:7.3f} ms, {plain / packed:.2f}x")
    for name, parts in FUSED.items():
        weights = [torch.randn(SHAPES[part][::-1]).to(dtype) for part in parts]
        x = torch.randn(ROWS, weights[0].shape[1]).to(dtype)
        apart, fused = milliseconds(several([plain_product(x, w) for w in weights]), plain_product(x, torch.cat(weights)))
        print(f"{dtype} {name:10} apart {apart:7.3f} ms, as one {fused:7.3f} ms, {apart / fused:.2f}x")

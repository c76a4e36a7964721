"""What resize's peer does: torch_resize.py ADAPTER MODULES RANK. The full SVD of the update of the first
MODULES modules, in f32, and their factors of RANK. Prints seconds of the work without imports and reading."""

import sys
import time

import torch
from safetensors import safe_open

folder, modules, rank = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with safe_open(f"{folder}/adapter_model.safetensors", "pt") as file:
    stems = sorted(key[: -len(".lora_A.weight")] for key in file.keys() if key.endswith(".lora_A.weight"))
    # Other layers and other shapes: with two, one of the mlp and one of the attention.
    chosen = [stems[i * (len(stems) // modules + 3) % len(stems)] for i in range(modules)]
    pairs = [(file.get_tensor(f"{s}.lora_A.weight"), file.get_tensor(f"{s}.lora_B.weight")) for s in chosen]
started = time.perf_counter()
rounded = []
for a, b in pairs:
    u, s, v = torch.linalg.svd(b @ a, full_matrices=False)
    root = s[:rank].sqrt()
    rounded.append((u[:, :rank] * root, root[:, None] * v[:rank]))
print(time.perf_counter() - started, *[tuple(a.shape) for a, _ in pairs])

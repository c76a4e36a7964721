"""Seconds that numpy takes to multiply out and compare the first updates of two adapters:
diff_numpy.py A B MODULES."""

import pathlib
import sys
import time

import numpy
from safetensors import safe_open

files = [safe_open(pathlib.Path(path) / "adapter_model.safetensors", "np") for path in sys.argv[1:3]]
stems = sorted({key.rsplit(".lora_", 1)[0] for key in files[0].keys()})[: int(sys.argv[3])]
started = time.perf_counter()
for stem in stems:
    updates = [
        2 * (file.get_tensor(f"{stem}.lora_B.weight") @ file.get_tensor(f"{stem}.lora_A.weight"))
        for file in files
    ]
    numpy.linalg.norm(updates[0] - updates[1])
    numpy.vdot(updates[0], updates[1]) / numpy.linalg.norm(updates[0]) / numpy.linalg.norm(updates[1])
print(time.perf_counter() - started)

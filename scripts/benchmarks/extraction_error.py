"""extraction_error.py BASE TUNED ADAPTER: what an adapter leaves out of the difference, relative to all of it."""

import json
import pathlib
import sys

import torch
from safetensors.torch import load_file

base, tuned, adapter = map(pathlib.Path, sys.argv[1:4])
before, after = load_file(base / "model.safetensors"), load_file(tuned / "model.safetensors")
factors = load_file(adapter / "adapter_model.safetensors")
config = json.loads((adapter / "adapter_config.json").read_text())
scaling = config["lora_alpha"] / config["r"]
left = whole = 0.0
for key, a in factors.items():
    if not key.endswith("lora_A.weight"):
        continue
    name = key.removeprefix("base_model.model.").removesuffix("lora_A.weight") + "weight"
    change = after[name].double() - before[name].double()
    b = factors[key.replace("lora_A", "lora_B")].double()
    left += float((change - scaling * b @ a.double()).square().sum())
    whole += float(change.square().sum())
print((left / whole) ** 0.5)

"""Writes adapters of the shape of a 7B Llama's: make_large_adapter.py OUTPUT SEED. 224 modules, rank
64, F32, 640 MB. A is uniform in +-1/sqrt(in) as PEFT initialises it, B normal with deviation 1e-3."""

import json
import pathlib
import sys

import numpy
from safetensors.numpy import save_file

SHAPES = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (4096, 4096),
    "self_attn.v_proj": (4096, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (11008, 4096),
    "mlp.up_proj": (11008, 4096),
    "mlp.down_proj": (4096, 11008),
}
RANK = 64

output = pathlib.Path(sys.argv[1])
random = numpy.random.default_rng(int(sys.argv[2]))
tensors = {}
for layer in range(32):
    for name, (rows, columns) in SHAPES.items():
        stem = f"base_model.model.model.layers.{layer}.{name}"
        bound = 1 / columns**0.5
        a = random.random((RANK, columns), numpy.float32) * (2 * bound) - bound
        b = random.standard_normal((rows, RANK), numpy.float32) * numpy.float32(1e-3)
        tensors[f"{stem}.lora_A.weight"] = a
        tensors[f"{stem}.lora_B.weight"] = b
output.mkdir(parents=True)
save_file(tensors, output / "adapter_model.safetensors", metadata={"format": "pt"})
config = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "large",
    "r": RANK,
    "lora_alpha": 128,
    "target_modules": sorted({name.split(".")[1] for name in SHAPES}),
}
(output / "adapter_config.json").write_text(json.dumps(config, indent=2))

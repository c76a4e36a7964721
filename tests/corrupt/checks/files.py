"""Good files to damage: a base and an adapter on it, made by lora and by a byte writer."""

import json
import struct
import subprocess
from pathlib import Path


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def split(content):
    """(header bytes, data) of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length], content[8 + length :]


def f32_file(tensors):
    """Tensors by name: (shape, value that fills it)."""
    header, data = {}, b""
    for name, (shape, value) in tensors.items():
        count = 1
        for extent in shape:
            count *= extent
        begin = len(data)
        data += struct.pack("<f", value) * count
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    return safetensors({"__metadata__": {"format": "pt"}, **header}, data)


def config(**changes):
    return {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["fc1", "fc2"],
            "bias": "none", **changes}


class Good:
    """A folder with `base` (10-20-2, with lock) and `adapter` (with manifest)."""

    def __init__(self, lora, folder):
        self.folder = Path(folder)
        self.base = self.folder / "base"
        self.adapter = self.folder / "adapter"
        state = self.folder / "state.safetensors"
        state.write_bytes(f32_file({
            "base_model.model.fc1.lora_A.weight": ([2, 10], 0.5),
            "base_model.model.fc1.lora_B.weight": ([20, 2], 0.25),
            "base_model.model.fc2.lora_A.weight": ([2, 20], 0.5),
            "base_model.model.fc2.lora_B.weight": ([2, 2], -0.25),
        }))
        settings = self.folder / "adapter_config.json"
        settings.write_text(json.dumps(config()))

        def run(*arguments):
            subprocess.run([lora, *map(str, arguments)], check=True, capture_output=True)

        run("init-base", "--preset", "mlp", "--seed", "0", "-o", self.base)
        run("save", state, "--adapter-config", settings, "--base", self.base, "-o", self.adapter)
        self.weights = (self.adapter / "adapter_model.safetensors").read_bytes()
        self.base_weights = (self.base / "model.safetensors").read_bytes()

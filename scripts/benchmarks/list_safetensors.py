"""Lists an adapter's tensors with safetensors and numpy alone."""

import pathlib
import sys

from safetensors import safe_open

with safe_open(pathlib.Path(sys.argv[1]) / "adapter_model.safetensors", "np") as file:
    for name in file.keys():
        print(name, file.get_slice(name).get_shape())

"""The inputs that fuzzing left, at the places where lora reads such files."""

import json
import shutil
from pathlib import Path

from .files import config

# At most this many inputs of a target, evenly spaced: every one went through the parser already.
MOST = 24

# Target: (folder to copy, file to replace, what `verify` must never call right).
PLACES = {
    "safetensors": ("adapter", "adapter_model.safetensors", True),
    "adapter_config": ("adapter", "adapter_config.json", False),
    "manifest": ("adapter", "lora_manifest.json", True),
    "probe": ("adapter", "probe.safetensors", False),
    "torch_file": ("pickled", "adapter_model.bin", True),
    "zip": ("pickled", "adapter_model.bin", True),
    "pickle": ("pickled", "adapter_model.bin", True),
    "index": ("sharded", "model.safetensors.index.json", True),
    "lock": ("base", "base.lock.json", False),
    "model_config": ("base", "config.json", False),
    "json": ("base", "config.json", False),
    "tokenizer": ("base", "tokenizer.json", False),
    "chat_template": ("base", "chat_template.jinja", False),
}


def inputs(kept, target):
    files = sorted(path for path in (kept / target).glob("*") if path.is_file())
    step = max(1, (len(files) + MOST - 1) // MOST)
    return files[::step]


def jobs(good, folder, kept):
    folder = Path(folder)
    pickled = folder / "pickled"
    shutil.copytree(good.adapter, pickled)
    (pickled / "adapter_model.safetensors").unlink()
    sharded = folder / "sharded"
    shutil.copytree(good.base, sharded)
    (sharded / "model.safetensors").unlink()
    sources = {"adapter": good.adapter, "pickled": pickled, "sharded": sharded, "base": good.base}
    for target, (source, name, is_strict) in PLACES.items():
        for file in inputs(kept, target):
            path = folder / f"{target}-{file.name}"
            shutil.copytree(sources[source], path)
            shutil.copyfile(file, path / name)
            is_base = source in ("base", "sharded")
            pair = [good.adapter, "--base", path] if is_base else [path, "--base", good.base]
            label = f"{target}/{file.name}"
            yield f"verify {label}", ["verify", *pair], not is_strict
            yield f"inspect {label}", ["inspect", path], True
    for file in inputs(kept, "python_regex"):
        path = folder / f"regex-{file.name}"
        shutil.copytree(good.adapter, path)
        pattern = file.read_bytes().split(b"\n")[0].decode("utf-8", "replace")
        (path / "adapter_config.json").write_text(json.dumps(config(target_modules=pattern)))
        yield f"verify python_regex/{file.name}", ["verify", path, "--base", good.base], True
    for file in inputs(kept, "settings"):
        yield (f"verify settings/{file.name}",
               ["verify", good.adapter, "--base", good.base, "--settings", file], True)

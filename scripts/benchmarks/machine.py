"""What the figures were measured on."""

from __future__ import annotations

import os
import pathlib
import subprocess
from importlib import metadata

FEATURES = ("sha_ni", "avx2", "avx512f", "avx512_bf16", "amx_bf16")


def processor() -> dict[str, str]:
    info: dict[str, str] = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    return info


def has_bf16() -> bool:
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(processor().get("flags", "").split())


def describe(lora: pathlib.Path) -> str:
    info = processor()
    flags = info.get("flags", "").split()
    present = " ".join(f if f in flags else f"no-{f}" for f in FEATURES)
    memory = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) / 1e6
    version = subprocess.run([lora, "--version"], capture_output=True, text=True).stdout.strip()
    peers = ", ".join(f"{p} {metadata.version(p)}" for p in ("torch", "peft", "transformers", "safetensors"))
    return (
        f"{info.get('model name', 'unknown processor')}, {len(os.sched_getaffinity(0))} cores, "
        f"{memory:.0f} GB; {present}\n{version}; {peers}"
    )

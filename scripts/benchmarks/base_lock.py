"""Hashing every tensor of a base, against openssl hashing the same bytes on one thread."""

from __future__ import annotations

import os

from benchmarks.process import Bench, median


def run(bench: Bench) -> None:
    weights = bench.model / "model.safetensors"
    size = weights.stat().st_size
    adapter = bench.folder / "lock-adapter"
    # One module only: verify also looks at the base weights of every targeted module.
    bench.measure(*bench.python("peft_adapter.py", bench.model, adapter, r"model\.layers\.0\.self_attn\.k_proj"))
    bench.measure(bench.lora, "save", adapter, "--base", bench.model, "-o", "locked")
    threads = len(os.sched_getaffinity(0))
    ours, base_only, theirs = [], [], []
    for _ in range(max(3, bench.rounds)):
        theirs.append(bench.measure("openssl", "dgst", "-sha256", weights).seconds)
        # verify computes the whole lock to compare its root with the adapter's record.
        ours.append(bench.measure(bench.lora, "verify", "locked", "--base", bench.model).seconds)
        base_only.append(bench.measure(bench.lora, "verify", "locked").seconds)
    lock = median(ours) - median(base_only)
    print(f"openssl dgst -sha256        {size / median(theirs) / 1e9:6.2f} GB/s")
    print(
        f"lora verify --base (warm)   {size / lock / 1e9:6.2f} GB/s  "
        f"{median(theirs) / lock / threads:5.2f}x openssl a thread, on {threads} threads"
    )

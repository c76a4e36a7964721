"""Training on a base in fewer bits: tokens a second, memory during the steps, and what was estimated."""

from __future__ import annotations

import json

from benchmarks.process import Bench, median
from benchmarks.training import Case, lora_command, prepare, step_rates

SHAPES = ((1, 128), (4, 256), (1, 1024))


def resident(bench: Bench) -> int:
    lines = map(json.loads, (bench.folder / "run/metrics.jsonl").read_text().splitlines())
    return max(line["rss_bytes"] for line in lines if line["type"] == "step")


def run(bench: Bench) -> None:
    prepare(bench)
    for batch, seq_len in SHAPES:
        for base_dtype in ("native", "int8", "nf4"):
            name = f"{base_dtype}-{batch}x{seq_len}"
            if bench.only and name not in bench.only:
                continue
            command = [
                *lora_command(bench, Case("f32", "all-linear", batch, seq_len, flags=("--base-dtype", base_dtype)), 3),
                "--json",
            ]
            plan = json.loads(bench.measure(*command, "--dry-run").output)["result"]["plan"]
            bench.measure(*command)
            # LibTorch and the program themselves, before a model is there.
            own = bench.measure(bench.lora, "train", "--help").peak_bytes + 120_000_000
            memory = resident(bench)
            guess = plan["memory_bytes_estimate"] + own
            print(
                f"{name:16} {median(step_rates(bench)[1:]):6.0f} tok/s  {memory / 1e6:6.0f} MB in the steps"
                f"  estimated {guess / 1e6:6.0f} MB ({guess / memory:4.2f}x)",
                flush=True,
            )

"""Proving a merge of SmolLM2, against deltalint 0.1.0 on the same files; and memory against model size."""

from __future__ import annotations

import sys

from benchmarks.process import Bench, median, megabytes, milliseconds

# RssAnon of a process from outside, while it runs: its own pages, without those of mapped files.
ANONYMOUS = """
import subprocess, sys, time
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
peak = 0
while process.poll() is None:
    try:
        for line in open(f"/proc/{process.pid}/status"):
            if line.startswith("RssAnon:"):
                peak = max(peak, int(line.split()[1]) * 1024)
    except (FileNotFoundError, ProcessLookupError):
        break
    time.sleep(0.001)
if process.wait() != 0:
    sys.exit(process.returncode)
print(peak)
"""


def compare_with_deltalint(bench: Bench, dtype: str) -> None:
    base, adapter, merged = (bench.folder / f"{name}-{dtype}" for name in ("base", "adapter", "merged"))
    ours, theirs, theirs_alone = [], [], []
    for _ in range(bench.rounds):
        theirs.append(
            bench.measure(
                sys.executable, "-m", "deltalint.cli", "check", "--base", base, "--adapter", adapter,
                "--merged", merged,
            )  # fmt: skip
        )
        ours.append(bench.measure(bench.lora, "verify", adapter, "--base", base, "--merged", merged))
        theirs_alone.append(bench.measure(sys.executable, "-c", "import torch, safetensors.torch"))
    our_time = median([u.seconds for u in ours])
    their_time = median([u.seconds for u in theirs])
    start = median([u.seconds for u in theirs_alone])
    print(f"{dtype}: lora verify --merged {milliseconds([u.seconds for u in ours])}, every tensor bit for bit")
    print(f"{dtype}: deltalint check      {milliseconds([u.seconds for u in theirs])}, {start * 1e3:.0f} ms of them imports")
    print(f"{dtype}: {their_time / our_time:.1f}x; {(their_time - start) / our_time:.1f}x without its imports")


def memory(bench: Bench, dtype: str) -> None:
    base, adapter, merged = (bench.folder / f"{name}-{dtype}" for name in ("base", "adapter", "merged"))
    command = (bench.lora, "verify", adapter, "--base", base, "--merged", merged)
    peaks = [float(bench.measure(sys.executable, "-c", ANONYMOUS, *command).output) for _ in range(bench.rounds)]
    size = (merged / "model.safetensors").stat().st_size
    print(f"{dtype}: own pages {megabytes(peaks)} for checkpoints of {size / 1e6:.0f} MB")


def run(bench: Bench) -> None:
    for dtype in ("f32", "bf16"):
        bench.measure(*bench.python("peft_merge.py", bench.model, bench.folder, dtype))
        compare_with_deltalint(bench, dtype)
    for layers in (15, 30, 60):
        bench.measure(*bench.python("peft_merge.py", bench.model, bench.folder, "f32", layers))
        memory(bench, f"f32-{layers}")

"""Proving a merge of SmolLM2, against deltalint 0.1.0 on the same files; and memory against model size."""

from __future__ import annotations

import sys

from benchmarks.process import Bench, median, megabytes, milliseconds, own_pages


def compare_with_deltalint(bench: Bench, dtype: str) -> None:
    base, adapter, merged = (bench.folder / f"{name}-{dtype}" for name in ("base", "adapter", "merged"))
    ours, theirs, theirs_alone = [], [], []
    for _ in range(bench.rounds):
        theirs.append(
            bench.measure(
                sys.executable, "-m", "deltalint.cli", "check", "--base", base, "--adapter", adapter,
                "--merged", merged, codes=(0, 1),
            )  # fmt: skip
        )
        ours.append(bench.measure(bench.lora, "verify", adapter, "--base", base, "--merged", merged))
        theirs_alone.append(bench.measure(sys.executable, "-c", "import torch, safetensors.torch"))
    our_time = median([u.seconds for u in ours])
    their_time = median([u.seconds for u in theirs])
    start = median([u.seconds for u in theirs_alone])
    verdict = "finds nothing" if theirs[0].code == 0 else "says that the merge is wrong"
    print(f"{dtype}: lora verify --merged {milliseconds([u.seconds for u in ours])}, every tensor bit for bit")
    print(f"{dtype}: deltalint check      {milliseconds([u.seconds for u in theirs])}, {start * 1e3:.0f} ms of them imports; {verdict}")
    print(f"{dtype}: {their_time / our_time:.1f}x; {(their_time - start) / our_time:.1f}x without its imports")


def memory(bench: Bench, dtype: str) -> None:
    base, adapter, merged = (bench.folder / f"{name}-{dtype}" for name in ("base", "adapter", "merged"))
    command = (bench.lora, "verify", adapter, "--base", base, "--merged", merged)
    peaks = [own_pages(bench, *command) for _ in range(bench.rounds)]
    size = (merged / "model.safetensors").stat().st_size
    print(f"{dtype}: own pages {megabytes(peaks)} for checkpoints of {size / 1e6:.0f} MB")


def run(bench: Bench) -> None:
    for dtype in ("f32", "bf16"):
        bench.measure(*bench.python("peft_merge.py", bench.model, bench.folder, dtype))
        compare_with_deltalint(bench, dtype)
    for layers in (15, 30, 60):
        bench.measure(*bench.python("peft_merge.py", bench.model, bench.folder, "f32", layers))
        memory(bench, f"f32-{layers}")

"""Rank 64 to 16 of an adapter with the shape of a 7B Llama's, against torch's SVD of the whole updates."""

from __future__ import annotations

import shutil

from benchmarks.process import Bench, median, megabytes, milliseconds, own_pages

MODULES = 224
MEASURED = 2  # torch needs half a minute for one


def run(bench: Bench) -> None:
    large, small = bench.folder / "large", bench.folder / "small"
    bench.measure(*bench.python("make_large_adapter.py", large, 1))
    ours, dry, theirs = [], [], []
    command = (bench.lora, "resize", large, "--rank", 16, "-o", small)
    for _ in range(bench.rounds):
        shutil.rmtree(small, ignore_errors=True)
        ours.append(bench.measure(*command).seconds)
        dry.append(bench.measure(*command, "--dry-run").seconds)
        if not theirs or not bench.is_quick:
            output = bench.measure(*bench.python("torch_resize.py", large, MEASURED, 16)).output
            theirs.append(float(output.split()[0]) * MODULES / MEASURED)
    print(f"lora resize --rank 16, {MODULES} modules, read, written and durable: {milliseconds(ours)}")
    print(f"the same without writing:                                       {milliseconds(dry)}")
    print(f"torch.linalg.svd of the updates, {MEASURED} modules scaled to {MODULES}:      {milliseconds(theirs)}")
    print(f"{median(theirs) / median(ours):.0f}x; own pages {megabytes([own_pages(bench, *command, '--dry-run')])}")

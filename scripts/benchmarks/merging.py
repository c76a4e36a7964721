"""Merging an adapter into its base: whole processes against PEFT and the disk, memory, and the kernel alone."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time

from benchmarks.process import Bench, megabytes, median, own_pages


def forget(folder: pathlib.Path) -> None:
    """Takes a folder's files out of the page cache, so that a run reads them from the disk."""
    for file in folder.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_seconds(source: pathlib.Path, target: pathlib.Path) -> float:
    """What the disk alone takes: the same bytes, copied and flushed."""
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    with open(target, "rb") as handle:
        os.fsync(handle.fileno())
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def compare(bench: Bench, name: str, base: pathlib.Path, adapter: pathlib.Path, is_cold: bool) -> None:
    ours, theirs, copies, our_peak, their_peak, merged = [], [], [], [], [], bench.folder / "merged"
    command = (bench.lora, "merge", adapter, "--base", base, "-o", merged, "--quiet")

    def prepare() -> None:
        shutil.rmtree(merged, ignore_errors=True)
        if is_cold:
            forget(base)

    for _ in range(bench.rounds):
        prepare()
        peer = bench.measure(*bench.python("peft_merge_whole.py", base, adapter, merged))
        prepare()
        mine = bench.measure(*command)
        prepare()
        copies.append(copy_seconds(base / "model.safetensors", bench.folder / "copy"))
        ours.append(mine.seconds)
        theirs.append(peer.seconds)
        our_peak.append(mine.peak_bytes)
        their_peak.append(peer.peak_bytes)
    prepare()
    pages = own_pages(bench, *command)
    shutil.rmtree(merged, ignore_errors=True)
    ratio = median([b / a for a, b in zip(ours, theirs)])
    print(
        f"{name}: lora {median(ours):6.2f} s {megabytes(our_peak)} resident ({pages / 1e6:.0f} MB own pages)   "
        f"peft {median(theirs):6.2f} s {megabytes(their_peak)}   {ratio:.1f}x, memory "
        f"{median(our_peak) / median(their_peak):.3f}x; cp and fsync of the base {median(copies):.2f} s",
        flush=True,
    )


def kernel(bench: Bench) -> None:
    subprocess.run(
        [bench.root / "scripts/build", "release", "bench_merge_kernel"], check=True, stdout=subprocess.DEVNULL
    )
    program = bench.lora.parent / "bench_merge_kernel"
    ours, theirs = [], []
    for _ in range(bench.rounds):
        theirs.append(float(bench.measure(*bench.python("torch_merge_kernel.py", 4096, 16, 5)).output))
        ours.append(float(bench.measure(program, 4096, 16, 9).output))
    ratio = median([b / a for a, b in zip(ours, theirs)])
    moved = 2 * 2 * 4096 * 4096
    print(
        f"kernel, 4096 x 4096 bf16, r 16: lora {median(ours) * 1e3:.2f} ms ({moved / median(ours) / 1e9:.1f} GB/s in and "
        f"out), torch addmm and cast {median(theirs) * 1e3:.2f} ms, {ratio:.1f}x",
        flush=True,
    )


def run(bench: Bench) -> None:
    kernel(bench)
    bench.measure(*bench.python("peft_merge.py", bench.model, bench.folder, "bf16"))
    compare(bench, "SmolLM2 bf16, all-linear r 16, warm", bench.folder / "base-bf16", bench.folder / "adapter-bf16", False)
    bench.measure(*bench.python("make_billion.py", bench.folder))
    compare(bench, "1.1B bf16, q and v r 16, cold", bench.folder / "billion", bench.folder / "billion-adapter", True)

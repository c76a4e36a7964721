"""verify with every rule about numbers: a 7B-shaped adapter and one of 5 MB, against AdapterSentry."""

from __future__ import annotations

import pathlib
import shutil

from benchmarks.process import Bench, megabytes, median, milliseconds, own_pages


def run(bench: Bench) -> None:
    large = bench.folder / "large"
    small = bench.folder / "adapter-5mb"
    bench.measure(*bench.python("make_large_adapter.py", large, 1))
    if not small.exists():
        bench.measure(*bench.python("peft_adapter.py", bench.model, small))
    sentry = shutil.which("adaptersentry")
    ours, reads, theirs, typical = [], [], [], []
    for _ in range(max(3, bench.rounds)):
        reads.append(bench.measure("cat", large / "adapter_model.safetensors", discard=True).seconds)
        ours.append(bench.measure(bench.lora, "verify", large).seconds)
        typical += [bench.measure(bench.lora, "verify", small).seconds for _ in range(10)]
        if sentry:
            theirs.append(
                bench.measure(sentry, "scan", large / "adapter_model.safetensors", codes=(0, 1, 2)).seconds
            )
    size = pathlib.Path(large / "adapter_model.safetensors").stat().st_size
    print(f"cat to /dev/null             {milliseconds(reads)}")
    print(
        f"lora verify, {size / 1e6:.0f} MB        {milliseconds(ours)}  own pages "
        f"{megabytes([own_pages(bench, bench.lora, 'verify', large)])}"
    )
    if sentry:
        print(f"adaptersentry                {milliseconds(theirs)}  {median(theirs) / median(ours):5.1f}x")
    else:
        print("adaptersentry                not on the PATH (pip install adaptersentry==2.0.2)")
    print(f"lora verify, 5 MB            {milliseconds(typical)}")

"""combine of 2 and of 4 adapters of SmolLM2 (rank 16, every linear layer) by svd: the whole process, reading
and durable writing included, against PEFT's add_weighted_adapter alone."""

from __future__ import annotations

import shutil

from benchmarks.process import Bench, median, megabytes, milliseconds


def run(bench: Bench) -> None:
    bench.measure(*bench.python("peft_combine.py", bench.model, bench.folder, 4, "--make"))
    for count in (2, 4):
        adapters = [bench.folder / f"a{number}" for number in range(count)]
        weighted = [f"{path}@{1 / count}" for path in adapters]
        command = (bench.lora, "combine", *weighted, "--method", "svd", "-o", "combined")
        ours, theirs, our_peak, their_peak = [], [], [], []
        for _ in range(bench.rounds):
            shutil.rmtree(bench.folder / "combined", ignore_errors=True)
            usage = bench.measure(*command)
            ours.append(usage.seconds)
            our_peak.append(float(usage.peak_bytes))
            peer = bench.measure(*bench.python("peft_combine.py", bench.model, bench.folder, count))
            theirs.append(float(peer.output))
            their_peak.append(float(peer.peak_bytes))
        ratio = median(theirs) / median(ours)
        print(f"lora combine of {count}, svd, whole   {milliseconds(ours)}  {megabytes(our_peak)}")
        print(f"PEFT add_weighted_adapter, svd   {milliseconds(theirs)}  {megabytes(their_peak)}  {ratio:6.1f}x")

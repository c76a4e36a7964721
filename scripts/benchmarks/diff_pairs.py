"""diff of two 7B-shaped adapters against numpy that multiplies the updates out, and of two
checkpoints of 1 GB against reading them."""

from __future__ import annotations

from benchmarks.process import Bench, median, milliseconds

MODULES = 224
TIMED = 7  # of the same shapes as the others, one layer


def run(bench: Bench) -> None:
    first, second = bench.folder / "large", bench.folder / "large-2"
    for seed, folder in enumerate((first, second), start=1):
        if not folder.exists():
            bench.measure(*bench.python("make_large_adapter.py", folder, seed))
    a, b = bench.folder / "a.safetensors", bench.folder / "b.safetensors"
    bench.measure(*bench.python("make_checkpoint_pair.py", a, b))
    ours, theirs, reads, pairs = [], [], [], []
    for _ in range(max(3, bench.rounds)):
        ours.append(bench.measure(bench.lora, "diff", first, second, codes=(0, 1)).seconds)
        peer = bench.measure(*bench.python("diff_numpy.py", first, second, TIMED))
        theirs.append(float(peer.output) * MODULES / TIMED)
        reads.append(bench.measure("cat", a, b, discard=True).seconds)
        pairs.append(bench.measure(bench.lora, "diff", a, b, codes=(0, 1)).seconds)
    print(f"lora diff, two adapters      {milliseconds(ours)}")
    print(
        f"numpy, materialised          {milliseconds(theirs)}  {median(theirs) / median(ours):5.1f}x "
        f"(extrapolated from {TIMED} of {MODULES} modules)"
    )
    print(f"cat of two 1 GB checkpoints  {milliseconds(reads)}")
    print(f"lora diff, two checkpoints   {milliseconds(pairs)}  {median(reads) / median(pairs):5.2f} of reading")

import argparse
import pathlib
import sys
import tempfile

from benchmarks import (
    base_lock,
    combine,
    diff_pairs,
    extract,
    generation,
    instructions,
    machine,
    merging,
    quantised,
    resize,
    startup,
    tokenizer,
    training,
    verify_merged,
    verify_numbers,
)
from benchmarks.process import Bench

BENCHES = {
    "startup": startup.run,
    "base_lock": base_lock.run,
    "verify_numbers": verify_numbers.run,
    "diff_pairs": diff_pairs.run,
    "extract": extract.run,
    "tokenizer": tokenizer.run,
    "first_step": training.run_first_step,
    "train": training.run,
    "weight_layouts": training.run_weight_layouts,
    "generation": generation.run,
    "instructions": instructions.run,
    "quantised": quantised.run,
    "verify_merged": verify_merged.run,
    "resize": resize.run,
    "merge": merging.run,
    "combine": combine.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--lora", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved pairs; the median counts")
    parser.add_argument("--quick", action="store_true", help="one round, fewer steps: for a first look")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("names", nargs="*", help=f"of: {', '.join(BENCHES)}")
    options = parser.parse_args()
    unknown = [name for name in options.names if name.split(":")[0] not in BENCHES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    if options.list:
        print("\n".join(BENCHES))
        return 0
    print(machine.describe(options.lora))
    with tempfile.TemporaryDirectory(prefix="lora-bench-") as folder:
        bench = Bench(
            lora=options.lora.resolve(),
            model=options.model.resolve(),
            root=pathlib.Path(__file__).resolve().parents[2],
            folder=pathlib.Path(folder),
            rounds=1 if options.quick else options.rounds,
            is_quick=options.quick,
        )
        for name, function in BENCHES.items():
            if not options.names or name in [n.split(":")[0] for n in options.names]:
                bench.only = [n.split(":")[1] for n in options.names if n.startswith(name + ":")]
                print(f"\n== {name}", flush=True)
                function(bench)
    return 0


sys.exit(main())

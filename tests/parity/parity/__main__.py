import argparse
import os
import pathlib
import sys
import warnings

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

from transformers.utils import logging

from parity import (  # noqa: F401
    adapter_verdicts,
    base_checkpoints,
    combinations,
    decoder_families,
    decoders,
    derived,
    encoders,
    extracted,
    families,
    gguf_bases,
    healthy,
    kinds,
    loads,
    merged,
    packing,
    pages,
    repairs,
    reports,
    saved_files,
    seed_example,
    smollm2,
    smollm2_kinds,
    texts,
    unmerged,
)
from parity.harness import CASES, SLOW_CASES, Context, run_cases


def main() -> int:
    parser = argparse.ArgumentParser(prog="parity")
    parser.add_argument("--lora", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--all", action="store_true", help="the slow cases too, which names select as well")
    parser.add_argument("--report", type=pathlib.Path, help="where to write what was measured, as JSON")
    parser.add_argument("names", nargs="*", help="cases, or beginnings of their names")
    options = parser.parse_args()
    offered = [*CASES, *(SLOW_CASES if options.all or options.names else [])]
    names = [n for n in offered if not options.names or n.startswith(tuple(options.names))]
    if options.list:
        print("\n".join(names))
        return 0
    logging.disable_progress_bar()
    root = pathlib.Path(__file__).resolve().parents[3]
    context = Context(options.lora.resolve(), options.model.resolve(), root, root)
    passed, failed = run_cases(names, context, options.report)
    if not names:
        failed = 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())

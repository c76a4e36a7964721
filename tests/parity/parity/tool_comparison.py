"""What `lora verify`, PEFT, AdapterSentry and deltalint say about the same adapters.

usage: python -m parity.tool_comparison --lora LORA [--peers DIR] > docs/comparison.md
DIR holds AdapterSentry 2.0.2 and deltalint 0.1.0 (pip install --no-deps --target DIR ...). deltalint
judges merged models: it is given the base, the adapter and PEFT's merge of the undamaged adapter.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import warnings

import peft
import torch
from peft import PeftModel

from parity.adapter_set import BROKEN, WEIGHTS, Entry, Set, make_set
from parity.comparison import open_model
from parity.harness import Context
from parity.adapter_verdicts import verify


def lora_says(context: Context, adapters: Set, entry: Entry) -> str:
    code, findings = verify(context, adapters, entry)
    loud = [f for f in findings if f["severity"] != "note"]
    rules = sorted({f"{f['rule']} {f['severity']}" for f in loud})
    return ", ".join(rules) if rules else f"nothing wrong (exit {code})"


def peft_says(adapters: Set, entry: Entry) -> str:
    model = open_model(adapters.folder / entry.base)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            PeftModel.from_pretrained(model, adapters.path(entry))
        except Exception as error:  # noqa: BLE001 - whatever it raises is the answer
            return f"{type(error).__name__}"
    said = [str(w.message) for w in caught if "peft" in (w.filename or "")]
    return "warning: " + said[0].split(".")[0][:60].replace("|", "/") if said else "loads, says nothing"


def sentry_says(peers: pathlib.Path, adapters: Set, entry: Entry) -> str:
    path = adapters.path(entry) / WEIGHTS
    if not path.exists():
        return "reads safetensors only"
    done = subprocess.run(
        [sys.executable, "-m", "adaptersentry", "scan", path, "--format", "json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(peers)},
        timeout=120,
    )
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        return f"crash (exit {done.returncode})"
    return f"{report['verdict']['action']}" + ("" if done.returncode == 0 else f" (exit {done.returncode})")


def merge_of(adapters: Set, source: str) -> pathlib.Path:
    folder = adapters.folder / "merged" / source
    if not folder.exists():
        model = PeftModel.from_pretrained(open_model(adapters.folder / "base"), adapters.folder / source)
        model.merge_and_unload().save_pretrained(folder)
    return folder


def deltalint_says(peers: pathlib.Path, adapters: Set, entry: Entry) -> str:
    source = BROKEN[entry.name][1] if entry.name in BROKEN else entry.name
    if source.endswith("-recorded") or source in ("wrong-base", "wider-base"):
        source = "plain"
    try:
        merged = merge_of(adapters, source)
    except RuntimeError:
        return "PEFT cannot merge it"
    done = subprocess.run(
        [
            sys.executable, "-m", "deltalint.cli", "check", "--base", adapters.folder / entry.base,
            "--adapter", adapters.path(entry), "--merged", merged, "--json",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(peers)},
        timeout=300,
    )  # fmt: skip
    try:
        report = json.loads(done.stdout)
        return f"{report.get('verdict') or report.get('status')} (exit {done.returncode})"
    except json.JSONDecodeError:
        last = done.stderr.strip().splitlines()[-1:] or [""]
        words = last[0].replace(str(adapters.folder), "SET")
        return f"exit {done.returncode}: {words[:60]}".replace("|", "/")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tool_comparison")
    parser.add_argument("--lora", type=pathlib.Path, required=True)
    parser.add_argument("--peers", type=pathlib.Path, required=True)
    options = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[3]
    rows = []
    with tempfile.TemporaryDirectory(prefix="lora-comparison-") as name:
        folder = pathlib.Path(name)
        context = Context(options.lora.resolve(), folder, root, folder)
        adapters = make_set(
            root, folder, lambda s, b, o: context.run("save", s, "--base", b, "-o", o)
        )
        for entry in adapters.entries:
            rows.append(
                (
                    entry,
                    lora_says(context, adapters, entry),
                    peft_says(adapters, entry),
                    sentry_says(options.peers, adapters, entry),
                    deltalint_says(options.peers, adapters, entry),
                )
            )
            print(entry.name, file=sys.stderr)
    print_table(rows)
    return 0


def print_table(rows: list[tuple[Entry, str, str, str, str]]) -> None:
    print(f"""# What the tools say about the same adapters

Made by `python -m parity.tool_comparison` (tests/parity) with PEFT {peft.__version__}, torch
{torch.__version__.split("+")[0]}, AdapterSentry 2.0.2 and deltalint 0.1.0. The adapters are made by PEFT on a small
Llama and then damaged (tests/parity/parity/adapter_set.py). PEFT's answer is that of
`PeftModel.from_pretrained`. AdapterSentry looks for signs of tampering in the weights file alone and answers
allow, review or block. deltalint judges merged models: it is given PEFT's merge of the undamaged adapter.
Recorded adapters were written by `lora save --base`.
""")
    for is_healthy, title in ((True, "Healthy"), (False, "Broken")):
        print(f"## {title}\n")
        print("| adapter | what it is | lora verify --base | PEFT | AdapterSentry | deltalint |")
        print("|---|---|---|---|---|---|")
        for entry, *answers in rows:
            if entry.is_healthy == is_healthy:
                recorded = ", recorded" if entry.is_recorded and not is_healthy else ""
                print(f"| {entry.name} | {entry.what}{recorded} | " + " | ".join(answers) + " |")
        print()


if __name__ == "__main__":
    sys.exit(main())

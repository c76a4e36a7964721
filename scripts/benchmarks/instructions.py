"""Supervised tokens a second on instruction data: packed rows against PEFT's padded batches."""

from __future__ import annotations

import ast
import json
import pathlib
import shutil
import sysconfig

from benchmarks.process import Bench, median

SEQUENCE = 512  # of both; longer examples are cut
EXAMPLES = 8  # of a padded batch
ROWS = 2  # of a packed one: about as many tokens


def run(bench: Bench) -> None:
    data = bench.folder / "instructions.jsonl"
    write_instructions(data)
    steps = 3 if bench.is_quick else 5
    command = [
        bench.lora, "train", "--base", bench.model, "--data", data, "--run-dir", "run", "--loss-on", "completion",
        "--pack", "--seq-len", SEQUENCE, "--batch-size", ROWS, "--steps", steps, "--compute", "f32",
        "--target-modules", "all-linear", "--schedule", "constant", "--warmup", 0,
    ]  # fmt: skip
    plan = json.loads(bench.measure(*command, "--dry-run", "--json").output)["result"]["plan"]
    supervised = plan["supervised_tokens"] / plan["data_tokens"]
    ours, theirs, filled = [], [], []
    for _ in range(bench.rounds):
        arguments = (bench.model, data, "f32", "all-linear", EXAMPLES, SEQUENCE, steps)
        peer = json.loads(bench.measure(*bench.python("peft_train.py", *arguments)).output.splitlines()[-1])
        theirs.append(sum(peer["supervised"][1:]) / sum(peer["step_seconds"][1:]))
        filled += peer["fill"]
        shutil.rmtree(bench.folder / "run", ignore_errors=True)
        bench.measure(*command)
        lines = map(json.loads, (bench.folder / "run/metrics.jsonl").read_text().splitlines())
        rates = [line["tok_s"] for line in lines if line["type"] == "step"]
        ours.append(supervised * median(rates[1:]))
    ratio = median([a / b for a, b in zip(ours, theirs)])
    print(f"{plan['examples']} examples, {plan['data_tokens'] / plan['examples']:.0f} tokens each, "
          f"{100 * supervised:.0f} % with loss; full to: packed {100 * plan['fill']:.1f} %, "
          f"padded {100 * median(filled):.0f} %")  # fmt: skip
    print(f"supervised tokens a second: lora {median(ours):.0f}, peft {median(theirs):.0f}, {ratio:.2f}x")


def write_instructions(path: pathlib.Path) -> None:
    """A definition of Python's library as the prompt, its documentation as the completion."""
    with open(path, "w") as out:
        for file in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py")):
            source = file.read_text("utf-8")
            for node in ast.walk(ast.parse(source)):
                if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    continue
                text = ast.get_docstring(node)
                if text and len(text) > 20:
                    first = source.splitlines()[node.lineno - 1].strip()
                    prompt = f"What does this part of the module {file.stem} do?\n\n{first}\n\n"
                    out.write(json.dumps({"prompt": prompt, "completion": text}) + "\n")

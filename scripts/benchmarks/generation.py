"""Tokens a second of greedy generation, one sequence on the base and an adapter in bf16."""

from __future__ import annotations

import json

from benchmarks import training
from benchmarks.process import Bench, median

PROMPT = "An adapter holds only the parameters that were trained"
TOKENS = 128


def run(bench: Bench) -> None:
    training.prepare(bench)
    bench.measure(*training.lora_command(bench, training.CASES["bf16-all-linear-4x256"], 1))
    adapter = bench.folder / "run" / "adapter"

    def seconds(count: int) -> float:
        return bench.measure(
            bench.lora, "load", adapter, "--base", "bf16", "--prompt", PROMPT, "--max-new-tokens", count, "--ignore-eos"
        ).seconds

    ours, theirs, whole = [], [], []
    for _ in range(bench.rounds):
        peer = bench.measure(*bench.python("peft_generate.py", bench.folder / "bf16", adapter, PROMPT, TOKENS))
        theirs.append(TOKENS / json.loads(peer.output.splitlines()[-1])["seconds"])
        total = seconds(TOKENS + 1)
        ours.append(TOKENS / (total - seconds(1)))
        whole.append(peer.seconds / total)
    ratio = median([a / b for a, b in zip(ours, theirs)])
    print(
        f"generating {TOKENS} tokens, bf16: lora {median(ours):5.0f} tok/s, peft {median(theirs):5.0f} tok/s, "
        f"{ratio:.2f}x; whole processes {median(whole):.1f}x"
    )

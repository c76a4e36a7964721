"""Training tokens a second and peak memory, against PEFT on the same text, model and settings.

The floor is what the machine's matrix products alone would allow; the share of it that a run reaches stands behind it."""

from __future__ import annotations

import dataclasses
import json
import shutil

from benchmarks import machine
from benchmarks.process import Bench, megabytes, median, seconds_until


@dataclasses.dataclass
class Case:
    peer_dtype: str
    targets: str
    batch: int
    seq_len: int
    compute: str = ""  # the peer's dtype
    flags: tuple[str, ...] = ()

    def computes(self) -> str:
        return self.compute or self.peer_dtype


CASES = {
    "f32-all-linear-4x256": Case("f32", "all-linear", 4, 256),
    "f32-all-linear-1x1024": Case("f32", "all-linear", 1, 1024),
    "f32-compute-bf16-4x256": Case("f32", "all-linear", 4, 256, compute="bf16"),
    "f32-checkpointing-4x256": Case("f32", "all-linear", 4, 256, flags=("--checkpointing", "layer")),
    "bf16-all-linear-4x256": Case("bf16", "all-linear", 4, 256),
    "bf16-all-linear-1x1024": Case("bf16", "all-linear", 1, 1024),
    "bf16-qv-4x256": Case("bf16", "q_proj,v_proj", 4, 256),
    "bf16-checkpointing-4x256": Case("bf16", "all-linear", 4, 256, flags=("--checkpointing", "layer")),
}


def prepare(bench: Bench) -> None:
    documents = [bench.root / "LICENSE", *sorted((bench.root / "docs").glob("*.md"))]
    text = "\n".join(document.read_text(encoding="utf-8") for document in documents)
    (bench.folder / "corpus.txt").write_text(text, encoding="utf-8")
    if not (bench.folder / "bf16").exists():
        bench.measure(bench.lora, "init-base", "--from", bench.model, "--dtype", "bf16", "-o", "bf16")


def lora_command(bench: Bench, case: Case, steps: int) -> list[object]:
    base = bench.model if case.peer_dtype == "f32" else bench.folder / "bf16"
    shutil.rmtree(bench.folder / "run", ignore_errors=True)
    return [
        bench.lora, "train", "--base", base, "--data", "corpus.txt", "--no-shuffle", "--compute", case.computes(),
        "--target-modules", case.targets, "-r", 8, "--steps", steps, "--batch-size", case.batch,
        "--seq-len", case.seq_len, "--schedule", "constant", "--warmup", 0, "--run-dir", "run", *case.flags,
    ]  # fmt: skip


def peer_command(bench: Bench, case: Case, steps: int) -> tuple[object, ...]:
    corpus = bench.folder / "corpus.txt"
    return bench.python(
        "peft_train.py", bench.model, corpus, case.peer_dtype, case.targets, case.batch, case.seq_len, steps
    )


def gemm_rates(bench: Bench) -> dict[str, float]:
    """Matrix products of this machine by dtype, FLOP a second."""
    return json.loads(bench.measure(*bench.python("gemm_peak.py")).output.splitlines()[-1])


def floating_operations(bench: Bench, case: Case) -> float:
    """Of a trained token in the products of frozen matrices (forward, and the gradient of their input) and of attention
    (two products forward, five backward, half of them hidden by causality)."""
    config = json.loads((bench.model / "config.json").read_text(encoding="utf-8"))
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    weights = layers * (attention + 3 * hidden * config["intermediate_size"]) + hidden * config["vocab_size"]
    return 4.0 * weights + 7.0 * case.seq_len * heads * head_dim * layers


def step_rates(bench: Bench) -> list[float]:
    lines = map(json.loads, (bench.folder / "run/metrics.jsonl").read_text().splitlines())
    return [line["tok_s"] for line in lines if line["type"] == "step"]


def run(bench: Bench) -> None:
    prepare(bench)
    steps = 3 if bench.is_quick else 5
    for name, case in CASES.items():
        if bench.only and name not in bench.only:
            continue
        if case.computes() == "bf16" and not machine.has_bf16() and not bench.only:
            print(f"{name:24} left out: bf16 is emulated here, minutes a step (train:{name} runs it)")
            continue
        ours, theirs, our_peak, their_peak, floors = [], [], [], [], []
        tokens = case.batch * case.seq_len
        for _ in range(bench.rounds):
            peer = bench.measure(*peer_command(bench, case, steps))
            seconds = json.loads(peer.output.splitlines()[-1])["step_seconds"]
            theirs.append(median([tokens / s for s in seconds[1:]]))
            their_peak.append(peer.peak_bytes)
            mine = bench.measure(*lora_command(bench, case, steps))
            ours.append(median(step_rates(bench)[1:]))
            our_peak.append(mine.peak_bytes)
            floors.append(gemm_rates(bench)[case.computes()] / floating_operations(bench, case))
        ratios = [a / b for a, b in zip(ours, theirs)]
        print(
            f"{name:24} lora {median(ours):6.0f} tok/s {megabytes(our_peak)}   "
            f"peft {median(theirs):6.0f} tok/s {megabytes(their_peak)}   "
            f"speed {median(ratios):5.2f}x  memory {median(our_peak) / median(their_peak):5.2f}x  "
            f"floor {median(floors):5.0f} tok/s ({median([a / b for a, b in zip(ours, floors)]):.0%})",
            flush=True,
        )


def run_first_step(bench: Bench) -> None:
    """From the start of a process to its first finished step: our line of metrics, the peer's printed loss."""
    prepare(bench)
    for case in (Case("f32", "all-linear", 1, 64), CASES["f32-all-linear-4x256"], CASES["bf16-all-linear-4x256"]):
        if case.computes() == "bf16" and not machine.has_bf16():
            continue
        ours, theirs = [], []
        for _ in range(bench.rounds):
            theirs.append(seconds_until(bench, peer_command(bench, case, 1), bench.folder / "output"))
            ours.append(seconds_until(bench, lora_command(bench, case, 1), bench.folder / "run/metrics.jsonl"))
        ratio = median([a / b for a, b in zip(ours, theirs)])
        name = f"{case.computes()} {case.batch}x{case.seq_len}"
        print(f"first step of {name}: lora {median(ours):5.1f} s, peft {median(theirs):5.1f} s, {ratio:.2f}x", flush=True)


def run_weight_layouts(bench: Bench) -> None:
    print(bench.measure(*bench.python("weight_layouts.py")).output, end="", flush=True)

"""Reading and tokenizing text data, on one thread and on all, against the tokenizers package."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sysconfig

from benchmarks.process import Bench, median, milliseconds

MEGABYTES = 16
SEQUENCE = 2048


def run(bench: Bench) -> None:
    corpus = bench.folder / "corpus.jsonl"
    size = write_corpus(corpus)
    base = write_base(bench)
    cores = os.cpu_count() or 1
    alone, together, start = [], [], []
    peer_alone, peer_together = [], []
    short = bench.folder / "short.jsonl"
    short.write_text('{"text": "one line"}\n')
    for _ in range(bench.rounds):
        start.append(dry_run(bench, base, short, 1))
        alone.append(dry_run(bench, base, corpus, 1))
        peer_alone.append(peer(bench, corpus, 1))
        together.append(dry_run(bench, base, corpus, cores))
        peer_together.append(peer(bench, corpus, cores))
    print(f"{size / 1e6:.0f} MB of sources and documents, SmolLM2's tokenizer; without the start of either program")
    for name, ours, theirs in (("1 thread", alone, peer_alone), (f"{cores} threads", together, peer_together)):
        seconds = median(ours) - median(start)
        print(f"lora, {name:<22} {milliseconds([seconds])}  {size / seconds / 1e6:4.0f} MB/s, parsing included")
        print(f"tokenizers, {name:<16} {milliseconds(theirs)}  {median(theirs) / seconds:5.1f}x")


def dry_run(bench: Bench, base: pathlib.Path, data: pathlib.Path, threads: int) -> float:
    run_dir = bench.folder / "tokenizer-run"
    return bench.measure(
        bench.lora, "train", "--base", base, "--data", data, "--run-dir", run_dir, "--dry-run",
        "--seq-len", SEQUENCE, "--threads", threads, "--quiet",
    ).seconds  # fmt: skip


def peer(bench: Bench, data: pathlib.Path, threads: int) -> float:
    """Seconds of the calls alone: no start, no parsing."""
    env = {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
    command = bench.python("peer_tokenizer.py", bench.model / "tokenizer.json", data)
    return float(bench.measure(*command, env=env).output)


def write_base(bench: Bench) -> pathlib.Path:
    """A small model with SmolLM2's vocabulary and tokenizer."""
    config = json.loads((bench.model / "config.json").read_text())
    config |= {
        "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 4,
    }  # fmt: skip
    arch = bench.folder / "tokenizer-arch.json"
    arch.write_text(json.dumps(config))
    base = bench.folder / "tokenizer-base"
    bench.measure(bench.lora, "init-base", "--arch", arch, "-o", base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bench.model / name, base / name)
    return base


def write_corpus(path: pathlib.Path) -> int:
    """Sources and documents of the Python installation and its packages, one a line."""
    total = 0
    with open(path, "w") as out:
        for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
            limit = total + MEGABYTES * 500_000
            for file in sorted(pathlib.Path(folder).rglob("*")):
                if file.suffix not in (".py", ".md", ".txt", ".rst", ".h") or not file.is_file():
                    continue
                try:
                    text = file.read_text("utf-8")
                except UnicodeDecodeError:
                    continue
                if 0 < len(text) < 400_000 and text.strip() and total < limit:
                    out.write(json.dumps({"text": text}) + "\n")
                    total += len(text.encode())
    return total

"""`lora extract` against mergekit-extract-lora 0.1.5: rank 16 of all linear layers of SmolLM2, whole process."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import sysconfig

from benchmarks.process import Bench, Usage, megabytes, median

PACKAGES = ["mergekit==0.1.5", "click", "immutables", "pydantic", "pydantic-core", "annotated-types",
            "typing-inspection", "accelerate", "scipy", "psutil"]  # fmt: skip


def mergekit(bench: Bench) -> pathlib.Path:
    """A folder of its own for the peer; torch and transformers are those of this Python."""
    folder = bench.root / ".deps" / "mergekit"
    program = folder / "bin" / "mergekit-extract-lora"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = folder / "bin" / "python"
        paths = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        (pathlib.Path(paths) / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *PACKAGES], check=True)
    return program


def run(bench: Bench) -> None:
    program = mergekit(bench)
    tuned, ours, theirs = (bench.folder / name for name in ("tuned", "ours", "theirs"))
    bench.measure(*bench.python("tune_linears.py", bench.model, tuned))
    own: list[Usage] = []
    peer: list[Usage] = []
    for _ in range(bench.rounds):
        shutil.rmtree(ours, ignore_errors=True)
        own.append(
            bench.measure(
                bench.lora, "extract", "--base", bench.model, "--tuned", tuned, "-o", ours, "--rank", 16, "--no-progress"
            )
        )
        peer.append(
            bench.measure(
                program, "--model", tuned, "--base-model", bench.model, "--out-path", theirs, "--max-rank", 16,
                "--exclude-regex", "lm_head|embed_tokens|norm", "--no-write-model-card",
                env={"HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
        )
    errors = [
        float(bench.measure(*bench.python("extraction_error.py", bench.model, tuned, adapter)).output)
        for adapter in (ours, theirs)
    ]
    seconds = [median([one.seconds for one in side]) for side in (own, peer)]
    peak = [megabytes([one.peak_bytes for one in side]) for side in (own, peer)]
    print(f"lora extract          {seconds[0]:8.2f} s  {peak[0]}  error {errors[0]:.6f}")
    print(f"mergekit-extract-lora {seconds[1]:8.2f} s  {peak[1]}  error {errors[1]:.6f}")
    print(f"ratio {seconds[1] / seconds[0]:.1f}x, error {errors[0] / errors[1]:.6f} of the full SVD's")

"""Writes docs/parity.md from what the cases measured: python -m parity.page REPORT.json PAGE.md"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import sys

PACKAGES = ("torch", "peft", "transformers", "tokenizers", "safetensors", "gguf")
FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_bf16")
# Title, beginnings of the cases' names.
SECTIONS = [
    ("Thirty steps of training on SmolLM2-135M-Instruct", ("real_training_",)),
    ("SmolLM2-135M-Instruct", ("smollm2_",)),
    ("Llama and its kinds of adapter", ("llama_", "kinds_llama_", "kinds_pissa", "kinds_added")),
    ("Other decoders", ("decoder_", "gpt2_", "gpt_neox_", "kinds_gpt2_")),
    ("Encoders and heads", ("bert_", "roberta_", "xlm_roberta_", "camembert_", "distilbert_")),
    ("Bases imported from GGUF", ("gguf_",)),
]
HEAD = """# Parity

What `lora` computes against the real PEFT and transformers, measured by the cases of `tests/parity`. Written by
`scripts/parity_report`, which anyone can run again; the numbers move in the last digit with the processor.

Each cell is the largest absolute difference, and what the case allows. *Losses*: those of every step of the same
training. *Logits*: of the same inputs, with adapters that PEFT loads from `lora` and `lora` from PEFT, after training
or of random values. `real_training_bf16` has the root mean square distance of its losses from those of f32, and one and a
half times PEFT's own. Tiny models have random weights that make logits of order 1 to 10. Cases that were not chosen for
the run are not in the tables; `tests/parity/run --all --list` names all.

"""


def machine() -> str:
    flags: set[str] = set()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                flags.update(line.split(":", 1)[1].split())
    except OSError:
        pass
    found = ", ".join(name for name in FEATURES if name in flags) or "no vector extensions known here"
    return f"{platform.machine()} with {found}; {os.cpu_count()} processors"


def cell(measured: list[dict], wanted: str) -> str:
    fitting = [one for one in measured if wanted in one["what"]]
    if not fitting:
        return ""
    worst = max(fitting, key=lambda one: one["difference"] / one["tolerance"])
    return f"{worst['difference']:.1e} of {worst['tolerance']:.0e}"


def section(title: str, cases: dict[str, dict]) -> str:
    rows = []
    for name, result in cases.items():
        losses, logits = cell(result["measured"], "losses"), cell(result["measured"], "logits")
        if losses or logits:
            verdict = "" if result["passed"] else " (fails)"
            rows.append(f"| {name}{verdict} | {logits} | {losses} |")
    if not rows:
        return ""
    return f"## {title}\n\n| case | logits | losses |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"


def main() -> int:
    report, page = map(pathlib.Path, sys.argv[1:3])
    results = json.loads(report.read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {importlib.metadata.version(name).split('+')[0]}" for name in PACKAGES)
    text = HEAD + f"Peers: {versions}. Machine: {machine()}.\n\n"
    for title, beginnings in SECTIONS:
        text += section(title, {n: r for n, r in results.items() if n.startswith(beginnings)})
    page.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return 0


sys.exit(main())

"""Verbs that need no LibTorch, against Python that lists the same adapter."""

from __future__ import annotations

from benchmarks.process import Bench, Usage, megabytes, median, milliseconds


def run(bench: Bench) -> None:
    adapter = bench.folder / "adapter-5mb"
    bench.measure(*bench.python("peft_adapter.py", bench.model, adapter))
    commands = {
        "lora --version": (bench.lora, "--version"),
        "lora --help": (bench.lora, "--help"),
        "lora inspect": (bench.lora, "inspect", adapter),
        "lora verify": (bench.lora, "verify", adapter),
        "safetensors + numpy, list": bench.python("list_safetensors.py", adapter),
        "peft, list": bench.python("list_peft.py", adapter),
    }
    usages: dict[str, list[Usage]] = {name: [] for name in commands}
    for _ in range(bench.rounds):
        for name, command in commands.items():
            for _ in range(1 if name.startswith("peft") else 10):
                usages[name].append(bench.measure(*command))
    peft = median([u.seconds for u in usages["peft, list"]])
    for name, list_ in usages.items():
        seconds = [u.seconds for u in list_]
        print(
            f"{name:28} {milliseconds(seconds)}  {megabytes([u.peak_bytes for u in list_])}  "
            f"{peft / median(seconds):7.1f}x peft",
            flush=True,
        )

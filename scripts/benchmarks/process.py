"""Runs commands and measures them; prints ratios."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import time


@dataclasses.dataclass
class Usage:
    seconds: float
    peak_bytes: int  # resident; never below this driver's own, which is about 15 MB
    output: str
    code: int = 0


@dataclasses.dataclass
class Bench:
    lora: pathlib.Path
    model: pathlib.Path  # SmolLM2-135M-Instruct (dequantised from Q4_1), f32
    root: pathlib.Path
    folder: pathlib.Path
    rounds: int
    is_quick: bool
    only: list[str] = dataclasses.field(default_factory=list)

    def measure(
        self,
        *command: object,
        env: dict[str, str] | None = None,
        codes: tuple[int, ...] = (0,),
        discard: bool = False,
    ) -> Usage:
        """Runs a command that must end with one of `codes`; `discard` sends its output to /dev/null."""
        words = [str(word) for word in command]
        sink = open(os.devnull, "w") if discard else None
        with open(self.folder / "output", "w+") as output, open(self.folder / "errors", "w+") as errors:
            started = time.perf_counter()
            process = subprocess.Popen(
                words, cwd=self.folder, stdout=sink or output, stderr=errors, env={**os.environ, **(env or {})}
            )
            _, status, resources = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            errors.seek(0)
            text = output.read()
            if process.returncode not in codes:
                raise SystemExit(f"{' '.join(words)} ended with {process.returncode}\n{text}{errors.read()}")
        return Usage(seconds, resources.ru_maxrss * 1024, text, process.returncode)

    def python(self, script: str, *arguments: object) -> tuple[object, ...]:
        """The command that runs a peer's script of this folder."""
        return (sys.executable, pathlib.Path(__file__).parent / script, *arguments)


def median(values: list[float]) -> float:
    return statistics.median(values)


def milliseconds(values: list[float]) -> str:
    return f"{median(values) * 1e3:8.1f} ms"


def megabytes(values: list[float]) -> str:
    return f"{median(values) / 1e6:7.0f} MB"


def own_pages(bench: Bench, *command: object) -> int:
    """Peak of the pages that a command holds besides mapped files (RssAnon), sampled while it runs."""
    process = subprocess.Popen(
        [str(word) for word in command], cwd=bench.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    status = pathlib.Path(f"/proc/{process.pid}/status")
    peak = 0
    while process.poll() is None:
        try:
            lines = status.read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            break
        for line in lines:
            if line.startswith("RssAnon:"):
                peak = max(peak, int(line.split()[1]) * 1024)
        time.sleep(0.001)
    process.wait()
    return peak


def seconds_until(bench: Bench, command: tuple[object, ...] | list[object], file: pathlib.Path) -> float:
    """From the start of a command until `file`, which does not exist before, ends with a line break."""
    file.unlink(missing_ok=True)
    started = time.perf_counter()
    with open(bench.folder / "output", "w") as output:
        process = subprocess.Popen([str(word) for word in command], cwd=bench.folder, stdout=output, stderr=subprocess.DEVNULL)
        while not (file.exists() and file.read_bytes().endswith(b"\n")):
            if process.poll() is not None:
                raise SystemExit(f"{command} ended with {process.returncode} before its first step")
            time.sleep(0.005)
        seconds = time.perf_counter() - started
        process.wait()
    return seconds

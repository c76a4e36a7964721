"""Cases, and running the built `lora` from them.

A case is a function of one `Context`; it passes when it returns and fails when it raises. Every case
gets an empty folder of its own and shares nothing with the others but the binary and the model.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import tempfile
import time
import traceback
from typing import Callable

import torch

CASES: dict[str, Callable[["Context"], None]] = {}
SLOW_CASES: dict[str, Callable[["Context"], None]] = {}  # minutes; only by name and for the report


@dataclasses.dataclass
class Measurement:
    what: str
    difference: float
    tolerance: float


MEASURED: list[Measurement] = []  # by the case that runs


def case(function: Callable[["Context"], None]) -> Callable[["Context"], None]:
    CASES[function.__name__] = function
    return function


def slow_case(function: Callable[["Context"], None]) -> Callable[["Context"], None]:
    SLOW_CASES[function.__name__] = function
    return function


@dataclasses.dataclass
class Context:
    lora: pathlib.Path  # the program under test
    model: pathlib.Path  # SmolLM2-135M-Instruct (dequantised from Q4_1), f32
    root: pathlib.Path  # the project
    folder: pathlib.Path  # this case's own
    notes: list[str] = dataclasses.field(default_factory=list)

    def note(self, text: str) -> None:
        """A figure worth seeing beside the case's name."""
        self.notes.append(text)

    def run(self, *arguments: object, exit_code: int = 0) -> dict:
        """Runs `lora ARGUMENTS --json` in the case's folder and returns the envelope's result."""
        command = [str(self.lora), *map(str, arguments), "--json"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=900)
        if done.returncode != exit_code:
            raise AssertionError(
                f"{' '.join(command)}\nended with {done.returncode}, expected {exit_code}\n"
                f"stdout: {done.stdout[-2000:]}\nstderr: {done.stderr[-2000:]}"
            )
        return json.loads(done.stdout)["result"]

    def envelope(self, *arguments: object) -> dict:
        """The whole document of `lora ARGUMENTS --json`, whatever its exit code."""
        command = [str(self.lora), *map(str, arguments), "--json"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=900)
        return json.loads(done.stdout)


def assert_close(what: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> float:
    """Largest absolute difference, which must not exceed `tolerance`."""
    if ours.shape != theirs.shape:
        raise AssertionError(f"{what}: shape {list(ours.shape)}, expected {list(theirs.shape)}")
    return assert_small(what, (ours.double() - theirs.double()).abs().max().item(), tolerance)


def assert_small(what: str, difference: float, tolerance: float) -> float:
    MEASURED.append(Measurement(what, difference, tolerance))
    if not difference <= tolerance:
        raise AssertionError(f"{what}: differs by {difference:.3g}, allowed {tolerance:.3g}")
    return difference


def assert_equal(what: str, ours: object, theirs: object) -> None:
    if ours != theirs:
        raise AssertionError(f"{what}:\n  ours     {ours!r}\n  expected {theirs!r}"[:4000])


def run_cases(names: list[str], context: Context, report: pathlib.Path | None = None) -> tuple[int, int]:
    """`report` gets what was measured, as JSON by case."""
    passed = failed = 0
    cases = {**CASES, **SLOW_CASES}
    measured: dict[str, dict] = {}
    for name in names:
        MEASURED.clear()
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="lora-parity-") as folder:
            context.folder = pathlib.Path(folder)
            context.notes = []
            torch.manual_seed(0)
            try:
                cases[name](context)
                error = None
            except Exception:  # noqa: BLE001 - one broken case must not hide the others
                error = traceback.format_exc()
        took = time.monotonic() - started
        notes = f"  ({'; '.join(context.notes)})" if context.notes else ""
        print(f"{'FAIL' if error else 'ok  '}  {name}  {took:.1f} s{notes}", flush=True)
        if error:
            failed += 1
            print(error, flush=True)
        else:
            passed += 1
        measured[name] = {
            "passed": error is None, "about": (cases[name].__doc__ or "").split("\n")[0],
            "measured": [dataclasses.asdict(one) for one in MEASURED],
        }  # fmt: skip
        if report is not None:
            report.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return passed, failed

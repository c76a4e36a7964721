"""`lora verify` on the set of good and broken adapters."""

from __future__ import annotations

import json
import subprocess

from parity.adapter_set import Entry, Set, make_set
from parity.harness import Context, assert_equal, case


def verify(context: Context, adapters: Set, entry: Entry) -> tuple[int, list[dict]]:
    done = subprocess.run(
        [context.lora, "verify", adapters.path(entry), "--base", adapters.folder / entry.base, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, json.loads(done.stdout)["findings"]


def make(context: Context) -> Set:
    return make_set(
        context.root,
        context.folder,
        lambda source, base, output: context.run("save", source, "--base", base, "-o", output),
    )


@case
def verdicts_of_the_adapter_set(context: Context) -> None:
    adapters = make(context)
    faults = []
    for entry in adapters.entries:
        code, findings = verify(context, adapters, entry)
        loud = [f for f in findings if f["severity"] != "note"]
        names = {f["rule"] for f in loud}
        if entry.is_healthy and (code != 0 or loud):
            faults.append(f"{entry.name}: exit {code}, {[(f['rule'], f['message']) for f in loud]}")
        if not entry.is_healthy and not names & set(entry.rules):
            faults.append(f"{entry.name}: exit {code}, expected one of {entry.rules}, found {sorted(names)}")
    assert_equal("adapters judged otherwise than expected", faults, [])
    context.note(f"{len(adapters.entries)} adapters")

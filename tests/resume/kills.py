"""python3 kills.py LORA [KILLS] [SEED]: a training that is killed again and again ends as one that is not."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

STEPS_A_KILL = 6  # of the whole run, so that the kills fall over all of it
KEPT = 2  # checkpoints
TIMEOUT = 300  # seconds of one process; a busy machine is slow, a hang is longer

KINDS = {
    "plain": ["--dropout", "0.1", "--target-modules", "all-linear", "--modules-to-save", "norm"],
    "pissa": ["--init", "pissa", "--rslora", "--target-modules", "q_proj,down_proj", "-r", "4"],
    "dora": ["--dora", "--target-modules", "q_proj,v_proj", "--trainable-tokens", "3,70"],
    "packed": ["--pack", "--seq-len", "64", "--dropout", "0.1", "--target-modules", "all-linear"],
}


def environment():
    return {"PATH": "/usr/bin:/bin", "LORA_THREADS": "2", "HOME": "/nonexistent", "OMP_WAIT_POLICY": "passive"}


class Training:
    """One base, one data set, and trainings on them in one folder."""

    def __init__(self, lora, folder):
        self.lora, self.folder = lora, Path(folder)
        self.run("init-base", "--preset", "tiny-llama", "--seed", "1", "-o", self.folder / "base")
        generator = random.Random(3)
        lines = [json.dumps({"input_ids": [generator.randrange(200) for _ in range(generator.randrange(8, 40))]}) for _ in range(40)]
        (self.folder / "data.jsonl").write_text("\n".join(lines) + "\n")
        (self.folder / "eval.jsonl").write_text("\n".join(lines[:4]) + "\n")

    def run(self, *arguments):
        done = subprocess.run([self.lora, *map(str, arguments)], capture_output=True, text=True,
                              env=environment(), timeout=TIMEOUT)
        if done.returncode != 0:
            raise RuntimeError(f"lora {arguments[0]} ended with {done.returncode}: {done.stderr.strip()[-500:]}")

    def arguments(self, run, steps, settings):
        if (run / "run.json").exists():
            return ["train", "--run-dir", run, "--resume"]
        return ["train", "--base", self.folder / "base", "--data", self.folder / "data.jsonl", "--run-dir", run,
                "--steps", steps, "--save-every", 1, "--keep", KEPT, "--batch-size", 2, "--grad-accum", 2,
                "--eval-data", self.folder / "eval.jsonl", "--eval-every", 7, "--lr", "1e-2", *settings]

    def start(self, run, steps, settings):
        command = [self.lora, *map(str, self.arguments(run, steps, settings)), "--quiet"]
        return subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE)

    def finish(self, run, steps, settings):
        """A run, or the rest of one, that nobody kills."""
        process = self.start(run, steps, settings)
        if process.wait(TIMEOUT) != 0:
            raise RuntimeError(f"{run.name} failed: {process.stderr.read().decode()[-500:]}")


def newest_checkpoint(run):
    names = sorted(p.name for p in (run / "checkpoints").glob("step-*"))
    return names[-1] if names else ""


def is_writing(run):
    folder = run / "checkpoints"
    return folder.is_dir() and any(name.startswith(".step-") for name in os.listdir(folder))


def wait_for(moment, process):
    """Until the moment has come or the process has ended, which is false."""
    end = time.monotonic() + TIMEOUT
    while process.poll() is None:
        if moment():
            return True
        if time.monotonic() > end:
            raise RuntimeError("no progress")
        time.sleep(0.0002)
    return False


def is_pruning(run):
    """While an old checkpoint waits for its removal, or goes."""
    names = os.listdir(run / "checkpoints") if (run / "checkpoints").is_dir() else []
    return sum(name.startswith("step-") for name in names) > KEPT


def kill_at_random(process, run, generator):
    """True when the process was killed, false when it had ended by itself."""
    kind = generator.choice(["start", "step", "writing", "writing"])
    if kind == "start":  # while it starts, LibTorch opens, the base is read
        time.sleep(generator.uniform(0, 1.0))
    else:
        before = newest_checkpoint(run)
        if not wait_for(lambda: newest_checkpoint(run) != before, process):
            return False
        if kind == "writing" and not wait_for(lambda: is_writing(run), process):
            return False
        time.sleep(generator.uniform(0, 0.03))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


def train_with_kills(training, run, steps, settings, kills, generator):
    """How often the run was killed before its end, at most `kills` times."""
    done = 0
    while done < kills:
        process = training.start(run, steps, settings)
        if not kill_at_random(process, run, generator):
            break  # a fast machine is through before it is killed again
        done += 1
    else:
        process = training.start(run, steps, settings)
    if process.wait(TIMEOUT) != 0:
        raise RuntimeError(f"after {done} kills: {process.stderr.read().decode()[-500:]}")
    return done


def metrics(run):
    """metrics.jsonl without the two figures that belong to the machine."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [json.dumps({k: v for k, v in line.items() if k not in ("tok_s", "rss_bytes")}) for line in lines]


def difference(straight, killed):
    """What differs between two finished runs, or None."""
    files = lambda run: sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file())
    if files(straight) != files(killed):
        return f"files: {sorted(set(files(straight)) ^ set(files(killed)))}"
    if metrics(straight) != metrics(killed):
        return "metrics.jsonl"
    for name in files(straight):
        if name in ("metrics.jsonl", ".lock"):
            continue
        if (straight / name).read_bytes() != (killed / name).read_bytes():
            return name
    return None


def check_kills(training, kind, kills, generator):
    steps = STEPS_A_KILL * kills
    straight = training.folder / f"{kind}-straight"
    training.finish(straight, steps, KINDS[kind])
    done = 0
    for runs in range(2 * kills):  # another run takes what kills one that is over has left
        killed = training.folder / f"{kind}-killed-{runs}"
        times = train_with_kills(training, killed, steps, KINDS[kind], kills - done, generator)
        problem = difference(straight, killed)
        if problem:
            raise RuntimeError(f"after {times} kills another content: {problem}")
        done += times
        if done == kills:
            return
    raise RuntimeError(f"killed {done} times only, expected {kills}")


def check_kills_while_pruning(training, kills, generator):
    """Nothing follows the last pruning that would make good what a kill left there."""
    steps = KEPT + 1
    straight = training.folder / "pruned-straight"
    training.finish(straight, steps, KINDS["plain"])
    files_in = lambda checkpoint: len(list(checkpoint.iterdir()))
    whole = files_in(straight / "checkpoints" / newest_checkpoint(straight))
    done = 0
    for attempt in range(5 * kills):
        run = training.folder / f"pruned-{attempt}"
        process = training.start(run, steps, KINDS["plain"])
        if not wait_for(lambda: is_pruning(run), process):
            continue
        time.sleep(generator.uniform(0, 0.0005))
        process.kill()
        process.wait()
        half = [p for p in (run / "checkpoints").glob("step-*") if files_in(p) < whole]
        if half:
            raise RuntimeError(f"a kill left half of {half[0].name}")
        training.finish(run, steps, KINDS["plain"])
        problem = difference(straight, run)
        if problem:
            raise RuntimeError(f"another content: {problem}")
        done += 1
        if done == kills:
            return
    raise RuntimeError(f"killed {done} times only, expected {kills}")


def check_full_disk(training):
    """A small file system is filled while a run goes on, and emptied again before its end."""
    disk = training.folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True).returncode:
        print("note  a full disk is not checked: this user cannot mount one")
        return False
    try:
        fill_and_empty(training, disk)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    return True


def fill_and_empty(training, disk):
    run, filler, steps = disk / "run", disk / "filler", 400
    command = training.arguments(run, steps, KINDS["plain"])
    process = subprocess.Popen([training.lora, *map(str, command)], env=environment(), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if not wait_for(lambda: newest_checkpoint(run) >= "step-000003", process):
        raise RuntimeError(f"ended early: {process.stderr.read()[-500:]}")
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
    reader.start()
    refused = lambda: [line for line in lines if "was not written" in line]
    with filler.open("wb", buffering=0) as file:
        while not refused() and process.poll() is None:  # what a failed checkpoint frees is taken as well
            try:
                file.write(b"\0" * 4096)
            except OSError:
                time.sleep(0.002)
    kept = newest_checkpoint(run)
    if not refused():
        raise RuntimeError(f"no warning about the full disk: {lines[-3:]}")
    if f"of step {int(kept.removeprefix('step-'))}" not in refused()[-1]:
        raise RuntimeError(f"the warning does not name the last good checkpoint, {kept}: {refused()[-1]}")
    if not (run / "checkpoints" / kept / "state.safetensors").exists():
        raise RuntimeError(f"the last good checkpoint {kept} is gone")
    filler.unlink()
    code = process.wait(TIMEOUT)
    reader.join()
    if code != 0:
        raise RuntimeError(f"the run did not end well: {lines[-3:]}")
    straight = training.folder / "undisturbed"
    training.finish(straight, steps, KINDS["plain"])
    problem = difference(straight, run)
    if problem:
        raise RuntimeError(f"after a full disk another content: {problem}")


def main(lora, kills="10", seed="0"):
    passed = failed = 0

    def note(name, check):
        nonlocal passed, failed
        started = time.monotonic()
        try:
            if check() is False:
                return
            passed += 1
            print(f"ok    {name}  {time.monotonic() - started:.0f} s", flush=True)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"FAIL  {name}: {error}", flush=True)

    with tempfile.TemporaryDirectory(prefix="lora-resume-") as folder:
        training = Training(lora, folder)
        for kind in KINDS:
            generator = random.Random(f"{seed} {kind}")
            note(f"{kind}, {kills} kills", lambda: check_kills(training, kind, int(kills), generator))
        generator = random.Random(f"{seed} pruning")
        note(f"{kills} kills while pruning", lambda: check_kills_while_pruning(training, int(kills), generator))
        note("a full disk", lambda: check_full_disk(training))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Runs lora, and says what was wrong with how it ended."""

import concurrent.futures
import os
import re
import resource
import subprocess
import tempfile
import threading
import time

DOCUMENTED = {0, 1, 2, 3, 4, 5, 6, 7}
TIMEOUT = 60  # seconds; a machine may be busy, a hang is longer


class Outcome:
    def __init__(self, code, out, err, seconds, own_kib):
        self.code, self.out, self.err = code, out, err
        self.seconds, self.own_kib = seconds, own_kib


def own_kib(pid):
    """Pages that a process holds besides those of mapped files."""
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def wait(pid, samples_memory):
    """(status, usage, largest memory of its own that was seen)."""
    most = 0
    while samples_memory:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage, most
        most = max(most, own_kib(pid))
        time.sleep(0.002)
    _, status, usage = os.wait4(pid, 0)
    return status, usage, most


def execute(lora, arguments, samples_memory=False):
    """The outcome, or None after a hang. Seconds are those of processors."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        environment = {"PATH": "/usr/bin:/bin", "LORA_THREADS": "2", "HOME": "/nonexistent"}
        process = subprocess.Popen(
            [lora, *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment,
        )
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        status, usage, most = wait(process.pid, samples_memory)
        hung = not timer.is_alive()
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if hung:
            return None
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
        return Outcome(process.returncode, *texts, usage.ru_utime + usage.ru_stime, most)


def complaint(outcome, may_succeed):
    """What is wrong with an outcome, or None."""
    if outcome is None:
        return f"still running after {TIMEOUT} s"
    if outcome.code not in DOCUMENTED:
        return f"exit code {outcome.code}: {outcome.err.strip()[-300:]}"
    if outcome.code == 0:
        return None if may_succeed else "exit code 0"
    errors = re.findall(r"^lora[^\n]*: error: .*$", outcome.err, re.MULTILINE)
    if outcome.code in (1, 7) or (outcome.code in (3, 4) and not errors):
        # A report (verify, diff) carries the finding on standard output.
        return None if outcome.out.strip() or errors else "neither a report nor an error"
    if len(errors) != 1:
        return f"{len(errors)} error lines: {outcome.err.strip()[-300:]}"
    return None


class Checks:
    """Counts checks; prints those that fail."""

    def __init__(self, lora):
        self.lora = lora
        self.passed = self.failed = 0

    def note(self, name, problem):
        if problem is None:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAIL  {name}: {problem}", flush=True)

    def run_all(self, jobs):
        """jobs: (name, arguments, may_succeed)."""
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            def one(job):
                name, arguments, may_succeed = job
                return name, complaint(execute(self.lora, arguments), may_succeed)

            for name, problem in pool.map(one, jobs):
                self.note(name, problem)

    def close(self):
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


def limit_core_dumps():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

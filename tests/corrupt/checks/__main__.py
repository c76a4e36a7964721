"""python3 -m checks LORA CORPUS_FOLDER [damages|corpus|hostile|limits|training]..."""

import subprocess
import sys
import tempfile
from pathlib import Path

from . import corpus, damages, hostile, limits, training
from .files import Good
from .runner import Checks, limit_core_dumps


def main(lora, kept, *chosen):
    limit_core_dumps()
    checks = Checks(lora)
    groups = chosen or ("damages", "corpus", "hostile", "limits", "training")
    verbs = set(damages.READERS)
    if subprocess.run([lora, "repair", "--help"], capture_output=True).returncode == 0:
        verbs.add("repair")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("good", *groups):
            (Path(folder) / name).mkdir()
        good = Good(lora, Path(folder) / "good")
        if "damages" in groups:
            checks.run_all(damages.jobs(good, Path(folder) / "damages", verbs))
        if "corpus" in groups:
            checks.run_all(corpus.jobs(good, Path(folder) / "corpus", Path(kept)))
        if "hostile" in groups:
            hostile.check(checks, hostile.cases(good, Path(folder) / "hostile"))
        if "limits" in groups:
            hostile.check(checks, limits.Cases(good, Path(folder) / "limits").all())
        if "training" in groups:
            inputs = Path(folder) / "training"
            tokenizer = Path(kept).parent / "golden/text/gpt2.tokenizer.json"
            base, small = training.prepare(lora, inputs, tokenizer)
            if training.can_train(lora, base, small):
                hostile.check(checks, training.cases(base, inputs), training.arguments(base, small))
    return checks.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

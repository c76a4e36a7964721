"""The reports of `lora verify` are what the tools that read them expect."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jsonschema
import sarif_pydantic
from lxml import etree

from parity.harness import Context, assert_equal, case

HERE = pathlib.Path(__file__).parent


def adapters(context: Context) -> list[str]:
    """A healthy adapter, one whose configuration was edited, one that is cut short, and none."""
    samples = context.root / "tests" / "golden" / "adapter" / "adapters"
    for name in ("good", "edited", "odd <&> name", "cut"):
        shutil.copytree(samples / "mlp", context.folder / name)
    config = context.folder / "edited" / "adapter_config.json"
    document = json.loads(config.read_text())
    document["r"] += 1
    config.write_text(json.dumps(document))
    weights = context.folder / "cut" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    return ["good", "edited", "odd <&> name", "cut", "missing"]


def report(context: Context, form: str, *arguments: str, exit_code: int) -> str:
    done = subprocess.run(
        [str(context.lora), "verify", *arguments, "--format", form],
        cwd=context.folder, capture_output=True, text=True, timeout=300,
    )
    assert_equal(f"exit code of --format {form}, {done.stderr}", done.returncode, exit_code)
    return done.stdout


def closed(**members: object) -> dict:
    """A schema of an object with these members and no others; a name ending in `_` is optional."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in members if not name.endswith("_")],
        "properties": {name.rstrip("_"): schema for name, schema in members.items()},
    }


def list_of(schema: dict) -> dict:
    return {"type": "array", "items": schema}


TEXT = {"type": "string", "minLength": 1}
MESSAGE = closed(text=TEXT)
LEVEL = {"enum": ["none", "note", "warning", "error"]}
# The part of SARIF 2.1.0 (OASIS standard) that the report uses; names, types and enumerations are
# the standard's, and whatever it does not know is refused.
SARIF = closed(**{
    "$schema": TEXT,
    "version": {"const": "2.1.0"},
    "runs": list_of(closed(
        tool=closed(driver=closed(
            name=TEXT,
            semanticVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
            rules=list_of(closed(
                id=TEXT, name=TEXT, shortDescription=MESSAGE, fullDescription=MESSAGE, help=MESSAGE,
                defaultConfiguration=closed(level=LEVEL),
            )),
        )),
        invocations=list_of(closed(
            executionSuccessful={"type": "boolean"},
            exitCode={"type": "integer"},
            toolExecutionNotifications_=list_of(closed(level=LEVEL, message=MESSAGE)),
        )),
        columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
        results=list_of(closed(
            ruleId=TEXT,
            ruleIndex={"type": "integer", "minimum": 0},
            level=LEVEL,
            message=MESSAGE,
            locations={"minItems": 1, **list_of(closed(
                physicalLocation=closed(
                    artifactLocation=closed(uri={"type": "string", "pattern": r"^[^ <>\"{}|\\^`]+$"}),
                    region=closed(startLine={"type": "integer", "minimum": 1}),
                ),
                logicalLocations_=list_of(closed(fullyQualifiedName=TEXT, kind=TEXT)),
            ))},
            partialFingerprints={"type": "object", "additionalProperties": TEXT},
            suppressions_=list_of(closed(kind={"enum": ["inSource", "external"]}, justification=TEXT)),
        )),
    )),
})


@case
def verify_junit_is_accepted_by_a_junit_schema(context: Context) -> None:
    paths = adapters(context)
    failing = report(context, "junit", *paths, exit_code=3)
    healthy = report(context, "junit", "good", exit_code=0)
    broken = report(context, "junit", "good", "--base", "none", exit_code=3)
    schema = etree.XMLSchema(file=str(HERE / "junit.xsd"))
    for name, text in (("failing", failing), ("healthy", healthy), ("broken", broken)):
        valid = schema.validate(etree.fromstring(text.encode()))
        assert_equal(f"{name}: {schema.error_log}", valid, True)
    assert_equal("suites", failing.count("<testsuite "), len(paths))


@case
def verify_sarif_is_valid_and_read_by_a_sarif_model(context: Context) -> None:
    paths = adapters(context)
    failing = report(context, "sarif", *paths, exit_code=3)
    broken = report(context, "sarif", "good", "--base", "none", exit_code=3)
    for text in (failing, report(context, "sarif", "good", exit_code=0), broken):
        document = json.loads(text)
        jsonschema.validate(document, SARIF)
        sarif_pydantic.Sarif.model_validate(document)
        run = document["runs"][0]
        rules = run["tool"]["driver"]["rules"]
        assert_equal("rule ids are unique", len({rule["id"] for rule in rules}), len(rules))
        for result in run["results"]:
            assert_equal("ruleIndex", rules[result["ruleIndex"]]["id"], result["ruleId"])
    results = json.loads(failing)["runs"][0]["results"]
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results]
    if not any(uri.startswith("odd%20%3C%26%3E%20name/") for uri in uris):
        raise AssertionError(f"no result lies in the folder with the odd name: {uris}")
    prints = [json.dumps(r["partialFingerprints"]) for r in results]
    assert_equal("fingerprints are unique", len(set(prints)), len(prints))


@case
def verify_hook_runs_in_pre_commit(context: Context) -> None:
    adapters(context)
    shutil.rmtree(context.folder / "odd <&> name")
    environment = {
        **os.environ,
        "LORA_BINARY": str(context.lora),
        "PRE_COMMIT_HOME": str(context.folder / ".cache"),
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c",
    }

    def git(*arguments: str, folder: pathlib.Path = context.folder) -> None:
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, env=environment)

    # The hook's repository: its definition and its entry, as a tagged version of the project has them.
    project = context.folder / ".project"
    (project / "scripts").mkdir(parents=True)
    shutil.copy(context.root / ".pre-commit-hooks.yaml", project)
    shutil.copy(context.root / "scripts" / "verify_changed", project / "scripts")
    git("init", "-q", folder=project)
    git("add", "-A", folder=project)
    git("commit", "-q", "-m", "version", folder=project)
    git("tag", "v0.1.0", folder=project)

    blocks = (context.root / "docs" / "ci.md").read_text().split("```yaml\n")
    config = blocks[2].split("```")[0].replace("https://github.com/OWNER/lora", str(project))
    (context.folder / ".pre-commit-config.yaml").write_text(config)
    git("init", "-q")
    git("add", "good", "edited", "cut", ".pre-commit-config.yaml")
    for files, expected in (
        (["good/adapter_config.json", "good/adapter_model.safetensors"], 0),
        (["edited/adapter_config.json"], 1),
        (["cut/adapter_model.safetensors"], 1),
        ([".pre-commit-config.yaml"], 0),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pre_commit", "run", "--files", *files],
            cwd=context.folder, env=environment, capture_output=True, text=True, timeout=300,
        )
        assert_equal(f"pre-commit on {files}:\n{done.stdout}{done.stderr}", done.returncode, expected)

"""Data sets that ask for memory. `train --dry-run` reads them; LibTorch's own pages do not count."""

import json
import shutil
import subprocess

from .hostile import MIB, write_apart


def data_sets():
    """(name, ending, content)."""
    # Values of forty times their text, in many lines that threads read at the same time.
    record = b'{"text":"ab","a":[' + b"0," * 400_000 + b'0]}\n'
    yield "large records", "jsonl", lambda: record * 20
    yield "one record of integers", "jsonl", lambda: b'{"input_ids":[' + b"1," * (4 * MIB) + b"1]}\n"
    yield "one record of text", "jsonl", lambda: b'{"text":"' + b"ab " * (10 * MIB) + b'"}\n'
    yield "one text", "txt", lambda: b"the " * (8 * MIB)
    yield "one word", "txt", lambda: b"ab" * (15 * MIB)
    yield "one text of special tokens", "txt", lambda: b"<|endoftext|>" * (2 * MIB)
    yield "one record of special tokens", "jsonl", lambda: b'{"text":"' + b"<|endoftext|>" * (2 * MIB) + b'"}\n'
    yield "short lines", "jsonl", lambda: b'{"input_ids":[1,1]}\n' * 500_000
    yield "useless lines", "jsonl", lambda: b"{}\n" * MIB
    yield "blank lines", "jsonl", lambda: b"\n" * (32 * MIB)
    yield "deep lines", "jsonl", lambda: (b"[" * 1000 + b"\n") * 10_000
    yield "long names", "jsonl", lambda: (b'{"' + b"x" * 100_000 + b'":1}\n') * 200


TEMPLATES = {
    "loops": "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    "doubled text": "{% set n = namespace(s='x') %}{% for i in range(60) %}"
                    "{% set n.s = n.s ~ n.s %}{% endfor %}",
    "kept text": "{% set n = namespace(a=[]) %}{% for i in range(100000) %}"
                 "{% set n.a = n.a + ['x' * 100000 ~ i] %}{% endfor %}",
    "nested values": "{% set n = namespace(l=[]) %}{% for i in range(100000) %}"
                     "{% set n.l = [n.l] %}{% endfor %}{{ n.l }}",
    "a value that holds itself": "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
    "macros": "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
}


def can_train(lora, base, small):
    """There are builds without the engine."""
    return subprocess.run([lora, *arguments(base, small)], capture_output=True).returncode == 0


def arguments(base, data):
    return ["train", "--base", base, "--data", data, "--run-dir", data.parent / "run", "--dry-run",
            "--steps", "1", "--seq-len", "64"]


def prepare(lora, folder, tokenizer):
    """A base with a tokenizer, and a small data set."""
    architecture, base = folder / "config.json", folder / "base"
    architecture.write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 512,
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 1, "max_position_embeddings": 64}))
    subprocess.run([lora, "init-base", "--arch", architecture, "-o", base], check=True,
                   capture_output=True)
    shutil.copyfile(tokenizer, base / "tokenizer.json")
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}")
    small = folder / "small.jsonl"
    small.write_text('{"text":"some words of a text"}\n')
    return base, small


def cases(base, folder):
    for name, ending, content in data_sets():
        file = folder / f"data.{ending}"
        size = write_apart(file, content)
        yield f"{ending}: {name}", size, arguments(base, file)
        file.unlink()
    file = folder / "messages.jsonl"
    file.write_text('{"messages":[{"role":"user","content":"words"}]}\n')
    for name, source in TEMPLATES.items():
        (base / "chat_template.jinja").write_text(source)
        yield f"chat template: {name}", len(source), arguments(base, file)

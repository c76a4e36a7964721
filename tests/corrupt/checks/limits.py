"""Files that ask for time: patterns that explode, counts that no file holds, folders by the
thousand. Each ends within seconds, and takes the memory that its file justifies."""

import json
import shutil
import struct
from pathlib import Path

from .files import config, safetensors
from .hostile import MIB, entries, write_apart

A = "base_model.model."


def empty_factors(modules):
    """Factors without elements for each module: as many names as a header carries."""
    record = '"%s%s.lora_%s.weight":{"dtype":"F32","shape":%s,"data_offsets":[0,0]}'
    return safetensors(("{" + ",".join(
        record % (A, module, side, shape)
        for module in modules for side, shape in (("A", "[0,1]"), ("B", "[1,0]"))) + "}").encode())


def long_names(count, length):
    return [f"layers.{i}." + "a" * length for i in range(count)]


def slow_patterns():
    """(name, members of the configuration): expressions that explode on long names."""
    for pattern in ("(a+)+$", ".*(a|aa)+b", "a*b", r"(.*\.)*(.*a)*c", "(?=(a+))*b", "(a?){300}b",
                    "((((a*)*)*)*)b", ".*.*.*.*.*.*x", "a" * 100_000, "(" * 5000 + ")" * 5000,
                    "[" + "a-z" * 50_000 + "]*b", "(?:a{0,65535}){0,65535}"):
        yield f"target_modules {pattern[:20]}", {"target_modules": pattern}
        yield f"exclude_modules {pattern[:20]}", {"exclude_modules": pattern}
    many = [f"(a|aa)*b{i}" for i in range(20_000)]
    yield "modules_to_save", {"modules_to_save": many}
    yield "layers_pattern", {"layers_pattern": many, "layers_to_transform": [0, 1]}
    yield "rank_pattern", {"rank_pattern": {key: 3 for key in many}}
    yield "alpha_pattern", {"alpha_pattern": {key: 3 for key in many}}
    yield "target_modules", {"target_modules": many}


def counts():
    """(name, members of the configuration): numbers that stand for more than a file holds."""
    large = 2**31 - 1
    yield "layer_replication", {"layer_replication": [[0, large]]}
    yield "many layer_replication", {"layer_replication": [[0, 1000]] * 100_000}
    yield "layers_to_transform", {"layers_to_transform": list(range(500_000))}
    yield "layers_to_transform number", {"layers_to_transform": large}
    yield "r", {"r": large}
    yield "trainable_token_indices", {"trainable_token_indices": list(range(500_000))}
    yield "target_parameters", {"target_parameters": [f"p{i}" for i in range(200_000)]}


def architectures():
    """(name, config.json): models of more modules than any computer holds."""
    large = 2**31 - 1
    for kind in ("llama", "gpt2", "bert", "mixtral", "qwen2_moe"):
        for field in ("num_hidden_layers", "num_local_experts", "num_experts"):
            fields = {"model_type": kind, "architectures": ["X"], "vocab_size": 10,
                      "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2,
                      "num_attention_heads": 2, "num_key_value_heads": 2, "n_layer": 2,
                      "n_embd": 8, "n_head": 2, "n_positions": 8,
                      "max_position_embeddings": 8, "num_local_experts": 2, "num_experts": 2,
                      "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}
            fields[field] = large
            if field == "num_hidden_layers":
                fields["n_layer"] = large
            yield f"{kind} {field}", fields
    yield "mlp", {"model_type": "mlp", "layers": [f"l{i}" for i in range(100_000)],
                  "hidden_sizes": [1] * 100_001, "activation": "relu"}
    yield "mlp sizes", {"model_type": "mlp", "layers": ["fc1"], "hidden_sizes": [large, large],
                        "activation": "relu"}


def settings():
    yield "lines", lambda: b"strict = true\n" * (2 * MIB)
    yield "tables", lambda: b"[train]\n" * (4 * MIB)
    yield "values", lambda: b"select = [" + b'"A",' * (4 * MIB) + b'"A"]\n'
    yield "a string", lambda: b'select = "' + b"x" * (32 * MIB) + b'"\n'
    yield "an open string", lambda: b'select = "' + b"\\x" * (16 * MIB)
    yield "an open array", lambda: b"select = [" + b"[" * (16 * MIB)
    yield "a name", lambda: b"x" * (32 * MIB)
    yield "zeros", lambda: bytes(32 * MIB)


def baselines():
    entry = (b'{"rule":"weights.nan","adapter":null,"module":"m%x","tensor":null,"message":"%x is"}')
    start, end = b'{"schema":"lora.verify_baseline/1","accepted":[', b"]}"
    yield "entries", lambda: start + entries(60_000, lambda i: entry % (i, i)) + end
    yield "nothing", lambda: start + b"{}," * (2 * MIB) + b"{}" + end
    yield "message", lambda: start + entry % (0, 0) + b',"' + b"x" * (7 * MIB) + b'"' + end


def templates():
    yield "nesting", lambda: b"{% if x %}" * (2 * MIB)
    yield "prints", lambda: b"{{x}}" * (4 * MIB)
    yield "brackets", lambda: b"{{" + b"[" * (16 * MIB)
    yield "openings", lambda: b"{%" * (16 * MIB)
    yield "a comment", lambda: b"{#" * (16 * MIB)
    yield "dots", lambda: b"{{ a" + b".__class__" * (2 * MIB) + b" }}"
    yield "words", lambda: b"import os; eval(\n" * (2 * MIB)
    yield "blanks", lambda: b" " * (32 * MIB)


def tokenizer_configs():
    yield "a template", lambda: json.dumps({"chat_template": "{{x}}" * MIB}).encode()
    yield "templates", lambda: json.dumps(
        {"chat_template": [{"name": f"n{i}", "template": "x"} for i in range(300_000)]}).encode()
    yield "added tokens", lambda: (b'{"added_tokens_decoder":{'
                                   + entries(400_000, lambda i: b'"%d":{"content":"x"}' % i) + b"}}")


def tokenizers():
    start = b'{"added_tokens":[],"model":{"type":"BPE","vocab":{'
    yield "vocabulary", lambda: (start + entries(1_500_000, lambda i: b'"%x":%d' % (i, i))
                                 + b'},"merges":[]}}')
    yield "merges", lambda: start + b'"a":0},"merges":[' + b'"a a",' * (4 * MIB) + b'"a a"]}}'
    yield "added tokens", lambda: (
        b'{"added_tokens":[' + entries(600_000, lambda i: b'{"id":%d,"content":"%x"}' % (i, i))
        + b'],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}')
    yield "WordPiece vocabulary", lambda: (
        b'{"model":{"type":"WordPiece","unk_token":"0","vocab":{'
        + entries(1_500_000, lambda i: b'"%x":%d' % (i, i)) + b"}}}")
    scored = b'{"model":{"type":"Unigram","unk_id":0,"vocab":['
    yield "scored vocabulary", lambda: scored + entries(2_000_000, lambda i: b'["%x",0]' % i) + b"]}}"
    yield "long scored tokens", lambda: (
        scored + entries(30_000, lambda i: b'["%d%s",0]' % (i, b"a" * 1000)) + b"]}}")
    yield "charsmap", lambda: (
        b'{"normalizer":{"type":"Precompiled","precompiled_charsmap":"' + b"A" * (15 * MIB)
        + b'"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}')
    yield "deep", lambda: b'{"normalizer":' + b'{"type":"Sequence","normalizers":[' * MIB


def legacy_files():
    magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    info = b"\x80\x02}."
    yield "open", lambda: magic + info + b"\x80\x02" + b"(" * (16 * MIB)
    yield "again", lambda: (magic + info) * (1 * MIB)
    yield "keys", lambda: magic + info + b"\x80\x02}.\x80\x02](" + b"X\x01\0\0\0a" * 1_000_000 + b"e."
    yield "memo", lambda: magic + info + b"\x80\x02" + b"]q\0" + b"h\0\x85q\0" * (3 * MIB) + b"."
    yield "tuples of tuples", lambda: (
        magic + info + b"\x80\x02N" + b"\x85q\0h\0h\0\x86" * (2 * MIB) + b".")
    yield "long integer", lambda: magic + b"\x80\x02\x8b" + struct.pack("<i", 32 * MIB) + bytes(32 * MIB) + b"."


def overlapping_zip(count, size):
    """Entries that all claim the same bytes."""
    def name(i):
        return b"a/data/%d" % i

    payload = bytes(size)
    local = b"PK\3\4" + struct.pack("<HHHHHIIIHH", 0, 0, 0, 0, 0, 0, size, size, 8, 0) + b"a/data/0"
    body = local + payload
    directory = b"".join(
        b"PK\1\2" + struct.pack("<HHHHHHIIIHH", 0, 0, 0, 0, 0, 0, 0, size, size, len(name(i)), 0)
        + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name(i) for i in range(count))
    end64 = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 0, 0, 0, 0, count, count, len(directory), len(body))
    locator = b"PK\6\7" + struct.pack("<IQI", 0, len(body) + len(directory), 1)
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return body + directory + end64 + locator + end


def zips():
    yield "overlapping entries", lambda: overlapping_zip(100_000, MIB)
    yield "ends", lambda: b"PK\5\6" * (8 * MIB)
    yield "a far directory", lambda: (
        b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 0, 0, 0, 0, 2**60, 2**60, 2**62, 2**62)
        + b"PK\6\7" + struct.pack("<IQI", 0, 0, 1)
        + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))


def manifests_of_probes():
    yield "metadata", lambda: safetensors(
        b'{"__metadata__":{' + entries(MIB, lambda i: b'"%x":"x"' % i) + b"}}")
    yield "tensors", lambda: safetensors(b"{" + entries(300_000, lambda i: (
        b'"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i)) + b"}")


class Cases:
    """Copies of the good folders with one file replaced, one after another at the same place."""

    def __init__(self, good, folder):
        self.good, self.path = good, Path(folder) / "current"
        self.pickled = Path(folder) / "pickled"
        shutil.copytree(good.adapter, self.pickled)
        (self.pickled / "adapter_model.safetensors").unlink()

    def copy(self, source, changes):
        """A copy with the files that `changes` writes; returns their size."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(source, self.path)
        return sum(write_apart(self.path / name, make) for name, make in changes.items())

    def adapters(self):
        names = long_names(500, 1000)
        weights = empty_factors(names)
        for name, members in (*slow_patterns(), *counts()):
            text = json.dumps(config(**members)).encode()
            size = self.copy(self.good.adapter, {
                "adapter_config.json": lambda text=text: text,
                "adapter_model.safetensors": lambda: weights})
            yield f"adapter_config.json: {name}", size, self.verify()
        for file_name, source, contents in (
            ("chat_template.jinja", self.good.adapter, templates()),
            ("tokenizer_config.json", self.good.adapter, tokenizer_configs()),
            ("tokenizer.json", self.good.adapter, tokenizers()),
            ("probe.safetensors", self.good.adapter, manifests_of_probes()),
            ("adapter_model.bin", self.pickled, legacy_files()),
            ("adapter_model.bin", self.pickled, zips()),
        ):
            for name, content in contents:
                size = self.copy(source, {file_name: content})
                yield f"{file_name}: {name}", size, self.verify()

    def bases(self):
        for name, fields in architectures():
            size = self.copy(self.good.base, {
                "config.json": lambda fields=fields: json.dumps(fields).encode()})
            for arguments in (["verify", self.good.adapter, "--base", self.path],
                              ["inspect", self.path]):
                yield f"config.json: {name}", size, arguments
        for name, content in (*templates(), ):
            size = self.copy(self.good.base, {"chat_template.jinja": content})
            yield f"base's chat_template.jinja: {name}", size, [
                "verify", self.good.adapter, "--base", self.path]
        for name, content in tokenizers():
            size = self.copy(self.good.base, {"tokenizer.json": content})
            yield f"base's tokenizer.json: {name}", size, [
                "verify", self.good.adapter, "--base", self.path]

    def flags(self):
        good = ["verify", self.good.adapter, "--base", self.good.base]
        for flag, contents in (("--settings", settings()), ("--baseline", baselines())):
            for name, content in contents:
                size = self.copy(self.good.adapter, {"file": content})
                yield f"{flag}: {name}", size, [*good, flag, self.path / "file"]

    def folders(self):
        size = self.copy(self.good.adapter, {})
        for i in range(20_000):
            (self.path / f"sub{i}").mkdir()
        size += sum(path.stat().st_size for path in self.path.iterdir())
        yield "20,000 folders in an adapter", size, self.verify()
        yield "20,000 empty folders", size, ["verify", f"{self.path}/sub*", "--base", self.good.base]
        deep = self.path
        for i in range(500):
            deep = deep / "d"
        deep.mkdir(parents=True)
        yield "folders in folders", size, self.verify()

    def verify(self):
        return ["verify", self.path, "--base", self.good.base]

    def all(self):
        yield from self.adapters()
        yield from self.bases()
        yield from self.flags()
        yield from self.folders()

"""Files that ask for memory: no process takes more than 64 MiB and twice the file of its own, which
the mapped file is not, besides what a process takes that does nothing."""

import json
import os
import shutil
import struct
from pathlib import Path

from .files import config, safetensors
from .runner import complaint, execute

MIB = 1 << 20
SECONDS = 20  # of processor time; a machine may be slow, what explodes is slower


def entries(count, make):
    return b",".join(make(i) for i in range(count))


def write_apart(path, make):
    """Writes what `make` gives in a process of its own: what this one once held would count as
    memory of the processes it starts. Returns the size."""
    pid = os.fork()
    if pid == 0:
        try:
            path.write_bytes(make())
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError(f"could not write {path}")
    return path.stat().st_size


def adapter_configs():
    yield "deep nesting", lambda: b"[" * (4 * MIB)
    yield "nested deep enough", lambda: b'{"a":' * 127 + b"1" + b"}" * 127
    yield "zeros", lambda: b'{"r":[' + b"0," * (3 * MIB) + b"0]}"
    yield "empty lists", lambda: b'{"r":[' + b"[]," * (2 * MIB) + b"[]]}"
    yield "members", lambda: b"{" + entries(400_000, lambda i: b'"%x":1' % i) + b"}"
    yield "nested members", lambda: b'{"rank_pattern":{' + entries(200_000, lambda i: b'"%x":{"a":1}' % i) + b"}}"
    yield "long string", lambda: b'{"a":"' + b"x" * (7 * MIB) + b'"}'
    yield "long escapes", lambda: b'{"a":"' + b"\\u0041" * MIB + b'"}'
    yield "long number", lambda: b'{"r":' + b"1" * (7 * MIB) + b"}"
    yield "long key", lambda: b'{"' + b"k" * (7 * MIB) + b'":1}'
    yield "large file", lambda: b'{"a":"' + b"x" * (48 * MIB) + b'"}'
    yield "targets", lambda: json.dumps(config(target_modules=[f"m{i}" for i in range(300_000)])).encode()
    yield "patterns", lambda: json.dumps(config(rank_pattern={f"m{i}": 3 for i in range(150_000)})).encode()


def weights():
    tensor = b'"%x":{"dtype":"U8","shape":[],"data_offsets":[%d,%d]}'
    empty = b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    lora = b'"base_model.model.m%x.lora_A.weight":{"dtype":"F32","shape":[0,1],"data_offsets":[0,0]}'
    yield "empty tensors", lambda: safetensors(b"{" + entries(600_000, lambda i: empty % i) + b"}")
    yield "some empty tensors", lambda: safetensors(b"{" + entries(20_000, lambda i: empty % i) + b"}")
    yield "tensors of a byte", lambda: safetensors(
        b"{" + entries(400_000, lambda i: tensor % (i, i, i + 1)) + b"}", bytes(400_000))
    yield "unpaired factors", lambda: safetensors(b"{" + entries(20_000, lambda i: lora % i) + b"}")
    yield "shape", lambda: safetensors(
        b'{"a":{"dtype":"U8","shape":[' + b"1," * (10 * MIB) + b'1],"data_offsets":[0,1]}}', b"x")
    yield "metadata", lambda: safetensors(
        b'{"__metadata__":{' + entries(2 * MIB, lambda i: b'"%x":""' % i) + b"}}")
    yield "name", lambda: safetensors(
        b'{"' + b"n" * (40 * MIB) + b'":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"x")
    yield "unknown field", lambda: safetensors(
        b'{"a":{"dtype":"U8","shape":[],"data_offsets":[0,1],"x":[' + b"{}," * (8 * MIB) + b"{}]}}",
        b"x")


def pickles():
    start = b"\x80\x02"
    yield "values", lambda: start + b"N0" * (8 * MIB) + b"."
    yield "memo", lambda: start + b"Nr\xff\xff\xff\x00." + bytes(32 * MIB)
    yield "list of one value", lambda: start + b"]q\0N" + b"q\1" + b"(" + b"h\1" * 900_000 + b"e."
    yield "lists", lambda: start + b"](" + b"]" * 1_000_000 + b"e."
    yield "tuples", lambda: start + b"N" + b"\x85" * (8 * MIB) + b"."
    name = b"X\x01\0\0\0a"
    yield "members", lambda: start + b"}(" + (name + b"N") * 400_000 + b"u."


def zips():
    def archive(count):
        records, directory = [], []
        offset = 0
        for i in range(count):
            name = b"a/%x" % i
            fixed = struct.pack("<HHHHHIIIHH", 0, 0, 0, 0, 0, 0, 0, 0, len(name), 0)
            record = b"PK\3\4" + fixed + name
            directory.append(b"PK\1\2" + struct.pack("<H", 0) + fixed
                             + struct.pack("<HHHII", 0, 0, 0, 0, offset) + name)
            records.append(record)
            offset += len(record)
        body, table = b"".join(records), b"".join(directory)
        end64 = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 0, 0, 0, 0, count, count, len(table),
                                        len(body))
        locator = b"PK\6\7" + struct.pack("<IQI", 0, len(body) + len(table), 1)
        end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        return body + table + end64 + locator + end

    yield "entries", lambda: archive(300_000)


def indices():
    yield "a million tiny entries", lambda: (
        b'{"weight_map":{' + entries(1_000_000, lambda i: b'"%x":"f"' % i) + b"}}")
    yield "a million entries", lambda: (
        b'{"weight_map":{' + entries(1_000_000, lambda i: (
            b'"model.layers.%d.mlp.experts.%d.down_proj.weight":"model-00001-of-00100.safetensors"'
            % (i // 1000, i % 1000))) + b"}}")
    yield "files", lambda: b'{"weight_map":{' + entries(300_000, lambda i: b'"%x":"%x"' % (i, i)) + b"}}"
    yield "metadata", lambda: b'{"metadata":[' + b"0," * (16 * MIB) + b'0],"weight_map":{"a":"f"}}'


def manifests():
    yield "scaling", lambda: (
        b'{"schema":"lora.manifest/1","base":null,"scaling":{'
        + entries(1_000_000, lambda i: b'"%x":1' % i) + b'},"tensors":{},"history":[]}')
    record = b'"%x":{"dtype":"F32","shape":[1],"sha256":"' + b"0" * 64 + b'","mean":0.5}'
    yield "tensors", lambda: (
        b'{"schema":"lora.manifest/1","base":null,"scaling":{},"tensors":{'
        + entries(150_000, lambda i: record % i) + b'},"history":[]}')
    yield "history", lambda: (
        b'{"schema":"lora.manifest/1","base":null,"scaling":{},"tensors":{},"history":['
        + b"{}," * (4 * MIB) + b"{}]}")


def locks():
    record = b'"%x":{"dtype":"F32","shape":[1],"sha256":"' + b"0" * 64 + b'"}'
    yield "tensors", lambda: (
        b'{"schema":"lora.base_lock/1","root":"' + b"0" * 64 + b'","tensors":{'
        + entries(200_000, lambda i: record % i) + b'},"aliases":{}}')


def cases(good, folder):
    """(name, file that asks for memory, arguments)."""
    folder = Path(folder)
    pickled = folder / "pickled"
    shutil.copytree(good.adapter, pickled)
    (pickled / "adapter_model.safetensors").unlink()
    sharded = folder / "sharded"
    shutil.copytree(good.base, sharded)
    (sharded / "model.safetensors").unlink()
    groups = (
        (good.adapter, "adapter_config.json", adapter_configs()),
        (good.adapter, "adapter_model.safetensors", weights()),
        (good.adapter, "lora_manifest.json", manifests()),
        (pickled, "adapter_model.bin", pickles()),
        (pickled, "adapter_model.bin", zips()),
        (sharded, "model.safetensors.index.json", indices()),
        (good.base, "base.lock.json", locks()),
        (good.base, "config.json", adapter_configs()),
    )
    for source, file_name, contents in groups:
        is_base = source in (sharded, good.base)
        for name, content in contents:
            path = folder / "current"
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(source, path)
            size = write_apart(path / file_name, content)
            pair = [good.adapter, "--base", path] if is_base else [path, "--base", good.base]
            yield f"{file_name}: {name}", size, ["verify", *pair]
            if file_name == "lora_manifest.json":
                yield f"{file_name}: {name}, as JSON", size, ["verify", *pair, "--json"]
            yield f"{file_name}: {name}", size, ["inspect", path]


def check(checks, cases, idle_arguments=("--version",)):
    """cases: (name, bytes of the files that ask, arguments)."""
    idle = execute(checks.lora, idle_arguments, samples_memory=True).own_kib
    for name, size, arguments in cases:
        outcome = execute(checks.lora, arguments, samples_memory=True)
        problem = complaint(outcome, True)
        if problem is None:
            taken = (outcome.own_kib - idle) * 1024
            allowed = 64 * MIB + 2 * size
            if taken > allowed:
                problem = f"took {taken / MIB:.0f} MiB, allowed {allowed / MIB:.0f} MiB"
            elif outcome.seconds > SECONDS:
                problem = f"took {outcome.seconds:.0f} s, allowed {SECONDS} s"
        checks.note(f"{arguments[0]} {name}", problem)

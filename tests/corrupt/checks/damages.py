"""Every way to damage a file of an adapter or a base, through every verb that reads it."""

import json
import os
import shutil
import struct
from pathlib import Path

from .files import safetensors, split


def _twice(text, key):
    """The JSON document with one member given twice."""
    document = json.loads(text)
    member = f"{json.dumps(key)}: {json.dumps(document[key])}"
    return ("{" + member + ", " + json.dumps(document)[1:]).encode()


def of_safetensors(content):
    """(name, damaged content): lengths, header bytes, structure, ends."""
    header, data = split(content)
    yield "empty", b""
    for length in (1, 7, 8, 9, 8 + len(header) // 2, 8 + len(header) - 1, 8 + len(header),
                   len(content) - 1):
        yield f"cut-at-{length}", content[:length]
    yield "tail", content + b"\0"
    for length in (0, 1, len(header) - 1, len(header) + 1, 10**8 + 1, 2**63, 2**64 - 1):
        yield f"length-{length}", struct.pack("<Q", length) + content[8:]
    for at in range(0, min(len(header), 400), 13):
        flipped = bytearray(header)
        flipped[at] ^= 0x80
        yield f"flip-header-{at}", safetensors(bytes(flipped), data)
    tensors = json.loads(header)
    first = next(name for name in tensors if name != "__metadata__")
    yield "name-twice", safetensors(_twice(header, first), data)
    for field, value in (
        ("dtype", "F33"), ("dtype", 3), ("dtype", "F64"), ("shape", [-1]), ("shape", [2**63]),
        ("shape", [2**40, 2**40]), ("shape", "x"), ("shape", [1.5]), ("data_offsets", [8, 0]),
        ("data_offsets", [0]), ("data_offsets", [0, 2**64]), ("data_offsets", [1, 81]),
        ("data_offsets", None),
    ):
        changed = json.loads(header)
        changed[first][field] = value
        yield f"{field}-{value}", safetensors(changed, data)
    missing = json.loads(header)
    del missing[first]["dtype"]
    yield "no-dtype", safetensors(missing, data)
    yield "no-tensors", safetensors({}, b"")
    yield "array", safetensors([], b"")
    yield "deep", safetensors(b'{"a":{"x":' + b"[" * 100000 + b"}}", data)
    yield "web-page", b"<!doctype html><html><body>Not found</body></html>"
    yield "lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    yield "gguf", b"GGUF\3\0\0\0" + bytes(32)
    yield "zip", b"PK\3\4" + bytes(64)


def of_json(text):
    """(name, damaged content) of a small JSON document."""
    yield "empty", b""
    for length in (1, len(text) // 3, len(text) // 2, len(text.rstrip()) - 1):
        yield f"cut-at-{length}", text[:length]
    yield "tail", text + b"{}"
    yield "array", b"[]"
    yield "null", b"null"
    yield "nul-byte", text.replace(b":", b":\0", 1)
    yield "byte-order-mark", b"\xef\xbb\xbf" + text
    yield "utf-16", text.decode().encode("utf-16")
    yield "not-utf-8", text.replace(b'"', b'"\xff', 1)
    yield "nan", text.replace(b"{", b'{"q": NaN, ', 1)
    yield "deep", b'{"a":' + b"[" * 100000
    yield "twice", _twice(text, next(iter(json.loads(text))))


def of_torch_file():
    yield "empty", b""
    yield "no-zip", b"PK\3\4"
    yield "end-only", b"PK\5\6" + bytes(18)
    yield "protocol-only", b"\x80\x02"
    yield "stop", b"\x80\x02."
    yield "call", b"\x80\x02cposix\nsystem\nX\x02\0\0\0id\x85R."
    yield "memo", b"\x80\x02Nr\xff\xff\xff\x7f."
    yield "deep", b"\x80\x02" + b"(" * 100000 + b"."


def special_files(path):
    """(name, function that puts something at `path`) for what is no regular file with content."""
    def link_loop():
        path.symlink_to(path.name)

    def link_nowhere():
        path.symlink_to("nowhere")

    def no_permission():
        path.write_bytes(b"{}")
        path.chmod(0)

    yield "directory", path.mkdir
    yield "fifo", lambda: os.mkfifo(path)
    yield "link-loop", link_loop
    yield "link-nowhere", link_nowhere
    yield "link-to-zero", lambda: path.symlink_to("/dev/zero")
    yield "link-to-null", lambda: path.symlink_to("/dev/null")
    if os.geteuid() != 0:
        yield "no-permission", no_permission


def adapter_jobs(good, path, name, strict, verbs):
    """What each verb makes of the adapter at `path`. `strict`: the verbs that must refuse it."""
    calls = {
        "verify": ["verify", path, "--base", good.base],
        "inspect": ["inspect", path],
        "load": ["load", path, "--base", good.base],
        "diff": ["diff", path, good.adapter],
        "save": ["save", path, "-o", Path(f"{path}-saved")],
        "repair": ["repair", path, "-o", Path(f"{path}-repaired")],
    }
    for verb, arguments in calls.items():
        if verb in verbs:
            yield f"{verb} {name}", arguments, verb not in strict


def base_jobs(good, path, name, strict, verbs):
    calls = {
        "verify": ["verify", good.adapter, "--base", path],
        "inspect": ["inspect", path],
        "load": ["load", good.adapter, "--base", path],
        "diff": ["diff", path, good.base],
        "init-base": ["init-base", "--from", path, "-o", Path(f"{path}-imported")],
    }
    for verb, arguments in calls.items():
        if verb in verbs:
            yield f"{verb} base {name}", arguments, verb not in strict


READERS = ("verify", "inspect", "load", "diff", "save")
BASE_READERS = ("verify", "inspect", "load", "diff", "init-base")


def _variants(source, target, file_name, contents):
    """Copies of a folder with one file replaced; yields (name, folder)."""
    for name, content in contents:
        folder = target / f"{file_name}-{name}".replace("/", "_").replace(" ", "")[:100]
        shutil.copytree(source, folder)
        path = folder / file_name
        path.unlink(missing_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        yield f"{file_name} {name}", folder


def _special(path_name):
    names = [name for name, _ in special_files(Path("/nonexistent"))]
    for name in names:
        yield name, lambda path, name=name: dict(special_files(path))[name]()


def jobs(good, folder, verbs):
    """All damages of adapters and bases."""
    target = Path(folder)
    weights = [*of_safetensors(good.weights), *_special("adapter_model.safetensors")]
    for name, path in _variants(good.adapter, target, "adapter_model.safetensors", weights):
        yield from adapter_jobs(good, path, name, READERS, verbs)
    configuration = (good.adapter / "adapter_config.json").read_bytes()
    texts = [*of_json(configuration), *_special("adapter_config.json")]
    for name, path in _variants(good.adapter, target, "adapter_config.json", texts):
        yield from adapter_jobs(good, path, name, READERS, verbs)
    manifest = (good.adapter / "lora_manifest.json").read_bytes()
    for name, path in _variants(good.adapter, target, "lora_manifest.json", of_json(manifest)):
        yield from adapter_jobs(good, path, name, ("verify",), ("verify", "inspect"))
    pickled = target / "pickled"
    shutil.copytree(good.adapter, pickled)
    (pickled / "adapter_model.safetensors").unlink()
    for name, path in _variants(pickled, target, "adapter_model.bin", of_torch_file()):
        yield from adapter_jobs(good, path, name, READERS, verbs)

    base_weights = [*of_safetensors(good.base_weights), *_special("model.safetensors")]
    for name, path in _variants(good.base, target / "bases", "model.safetensors", base_weights):
        yield from base_jobs(good, path, name, BASE_READERS, BASE_READERS)
    lock = (good.base / "base.lock.json").read_bytes()
    for name, path in _variants(good.base, target / "bases", "base.lock.json", of_json(lock)):
        yield from base_jobs(good, path, name, (), ("verify", "load"))
    arch = (good.base / "config.json").read_bytes()
    for name, path in _variants(good.base, target / "bases", "config.json", of_json(arch)):
        yield from base_jobs(good, path, name, ("load",), BASE_READERS)

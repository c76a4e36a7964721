"""The pages of `--html`, as a headless browser shows them."""

from __future__ import annotations

import pathlib
import re
import shutil
import struct
import subprocess
import zlib

from safetensors.torch import load_file, save_file

from parity.adapter_set import save_healthy
from parity.harness import Context, assert_equal, case
from parity.networks import make_llama

WIDTH, HEIGHT = 1200, 1600


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise AssertionError("no Chromium was found; scripts/setup --parity installs one")


def open_page(context: Context, page: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            browser(), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--hide-scrollbars", f"--user-data-dir={context.folder / 'profile'}",
            f"--window-size={WIDTH},{HEIGHT}", *arguments, page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        cwd=context.folder,
    )  # fmt: skip


def pixels(path: pathlib.Path) -> tuple[int, int, set[bytes]]:
    """Width, height and the colours of a PNG of 8 bits a channel."""
    data = path.read_bytes()
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert depth == 8 and kind in (2, 6), "unexpected kind of PNG"
    channels = 3 if kind == 2 else 4
    packed, at = b"", 8
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + size]
        at += 12 + size
    raw, stride = zlib.decompress(packed), width * channels
    previous, colours = bytearray(stride), set()
    for row in range(height):
        start = row * (stride + 1)
        line = bytearray(raw[start + 1 : start + 1 + stride])
        unfilter(raw[start], line, previous, channels)
        if row % 4 == 0:
            colours.update(bytes(line[i : i + 3]) for i in range(0, stride, channels * 2))
        previous = line
    return width, height, colours


def unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> None:
    for i in range(len(line)):
        left = line[i - step] if i >= step else 0
        up = above[i]
        if kind == 1:
            line[i] = (line[i] + left) & 255
        elif kind == 2:
            line[i] = (line[i] + up) & 255
        elif kind == 3:
            line[i] = (line[i] + (left + up) // 2) & 255
        elif kind == 4:
            corner = above[i - step] if i >= step else 0
            estimate = left + up - corner
            nearest = min((left, up, corner), key=lambda v: abs(estimate - v))
            line[i] = (line[i] + nearest) & 255


def check_page(context: Context, page: pathlib.Path, texts: list[str], least_svgs: int) -> str:
    source = page.read_text(encoding="utf-8")
    outside = re.findall(r"(?:src|href)\s*=|url\(|@import|<script", source)
    assert_equal("references to anything outside the page", outside, [])
    shown = open_page(context, page, "--dump-dom")
    assert_equal("exit code of the browser", shown.returncode, 0)
    complaints = [line for line in shown.stderr.splitlines() if ":CONSOLE" in line]
    assert_equal("what the browser complains of", complaints, [])
    for text in texts:
        if text not in shown.stdout:
            raise AssertionError(f"{page.name} does not show {text!r}")
    svgs = shown.stdout.count("<svg")
    if svgs < least_svgs:
        raise AssertionError(f"{page.name} has {svgs} drawings, expected at least {least_svgs}")
    picture = context.folder / (page.stem + ".png")
    open_page(context, page, f"--screenshot={picture}")
    width, height, colours = pixels(picture)
    assert_equal("size of the picture", (width, height), (WIDTH, HEIGHT))
    # Heat maps alone give dozens of shades; a blank or unstyled page has a handful.
    if len(colours) < 40:
        raise AssertionError(f"{page.name} shows {len(colours)} colours, expected drawings")
    return shown.stdout


@case
def pages_of_inspect_and_diff(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base")
    a, b = context.folder / "a", context.folder / "b"
    save_healthy(base, a, 1, target_modules="all-linear")
    save_healthy(base, b, 2, target_modules="all-linear", lora_alpha=32)
    context.run("inspect", a, "--html", "inspect.html")
    dom = check_page(
        context, context.folder / "inspect.html", ["Size of the updates", "q_proj", "down_proj"], 4
    )
    assert_equal("cells of two layers and seven modules, in two maps", dom.count('class="cell"'), 28)
    context.run("diff", a, b, "--html", "diff.html", exit_code=1)
    check_page(
        context,
        context.folder / "diff.html",
        ["lora_alpha", "Where they differ", "Cosine of the two updates", "gate_proj"],
        6,
    )


@case
def pages_of_checkpoints(context: Context) -> None:
    base = make_llama(context.root, context.folder / "base")
    tuned = context.folder / "tuned"
    shutil.copytree(base, tuned)
    tensors = load_file(tuned / "model.safetensors")
    for index, (name, value) in enumerate(sorted(tensors.items())):
        if name.endswith("proj.weight"):
            value.mul_(1 + 0.001 * (index + 1))
    save_file(tensors, tuned / "model.safetensors", metadata={"format": "pt"})
    context.run("diff", base, tuned, "--html", "diff.html", exit_code=1)
    check_page(context, context.folder / "diff.html", ["Where they differ", "F32", "up_proj"], 2)
    context.run("inspect", base, "--html", "inspect.html")
    text = (context.folder / "inspect.html").read_text()
    if "model.embed_tokens.weight" not in text:
        raise AssertionError("the page of a checkpoint does not list its tensors")

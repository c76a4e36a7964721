"""Writes docs/examples: the data that scripts/quickstart, the guide and the installation test train
on. Needs nothing but Python itself; the same bytes on any machine."""

import json
import pathlib
import random
import struct

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "docs" / "examples"


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """`tensors`: name to (dtype, shape, little-endian bytes), in file order."""
    header: dict[str, object] = {}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def points(rows: int, seed: int, with_sides: bool = True) -> bytes:
    """Points in ten dimensions, and the side of a fixed plane each lies on."""
    draw = random.Random(seed)
    plane = [1.0, -2.0, 0.5, 1.5, -1.0, 0.0, 2.0, -0.5, 1.0, -1.5]
    x, y = [], []
    for _ in range(rows):
        row = [round(draw.gauss(0, 1), 4) for _ in plane]
        x += row
        y.append(int(sum(a * b for a, b in zip(row, plane)) > 0))
    tensors = {"x": ("F32", [rows, len(plane)], struct.pack(f"<{len(x)}f", *x))}
    if with_sides:
        tensors = {"y": ("I64", [rows], struct.pack(f"<{rows}q", *y)), **tensors}
    return safetensors(tensors)


def counting(lines: int, seed: int) -> str:
    """Token sequences that count upwards from a random start: something a tiny model can learn."""
    draw = random.Random(seed)
    rows = []
    for _ in range(lines):
        start, length = draw.randrange(3, 20), draw.randrange(16, 33)
        rows.append(json.dumps({"input_ids": list(range(start, start + length))}))
    return "\n".join(rows) + "\n"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "points.safetensors").write_bytes(points(256, seed=1))
    (FOLDER / "points-eval.safetensors").write_bytes(points(64, seed=2))
    (FOLDER / "points-input.safetensors").write_bytes(points(5, seed=4, with_sides=False))
    (FOLDER / "counting.jsonl").write_text(counting(64, seed=3))


if __name__ == "__main__":
    main()

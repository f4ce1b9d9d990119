"""A small data set of intact and damaged images of every kind, and what packing it must give."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from PIL import Image

from distill_bench.data.dataset import TfdsDataset
from support.paths import ROOT
from support.small_tfds import encode, picture

SIDE, SHORTER, CROP = 32, 20, 16


def ramp(height, width):
    """An image whose red grows by 0.5 per column and whose green grows by 0.25 per row."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 0.5, rows * 0.25, np.zeros_like(rows)], -1).round().astype(np.uint8)


PALETTE = Image.fromarray(picture(40, 50, 4)).quantize(16)
STRIPES = np.tile(np.array([0, 255], np.uint8), 150)[None, :, None].repeat(200, 0).repeat(3, 2)
WHOLE = {  # intact files, and the RGB pixels that they hold
    "jpeg": (encode(Image.fromarray(picture(70, 90, 0)), "JPEG", quality=98), picture(70, 90, 0)),
    "grayscale jpeg": (
        encode(Image.fromarray(picture(64, 48, 1, 1)[..., 0]), "JPEG", quality=98),
        picture(64, 48, 1, 1).repeat(3, -1),
    ),
    "cmyk jpeg": (
        encode(Image.fromarray(picture(50, 60, 2)).convert("CMYK"), "JPEG", quality=98),
        picture(50, 60, 2),
    ),
    "png with alpha": (
        encode(Image.fromarray(picture(33, 47, 3, 4))),
        picture(33, 47, 3, 4)[..., :3],
    ),
    "palette with transparency": (
        encode(PALETTE, transparency=bytes(range(16))),
        np.asarray(PALETTE.convert("RGB")),
    ),
    "one pixel wide": (encode(Image.fromarray(picture(80, 1, 5))), picture(80, 1, 5)),
    "one pixel": (
        encode(Image.new("RGB", (1, 1), (9, 8, 7)), "JPEG"),
        np.full((1, 1, 3), [9, 8, 7], np.uint8),
    ),
    "stripes": (encode(Image.fromarray(STRIPES)), STRIPES),
    "ramp": (encode(Image.fromarray(ramp(400, 300))), ramp(400, 300)),
}
FILES = [content for content, _ in WHOLE.values()]
DAMAGED = [FILES[0][: len(FILES[0]) // 2], b"", b"<html>not found</html>", FILES[3][:40]]
TRAIN = [*FILES[:2], *DAMAGED, *FILES[2:]]
KEPT = [i for i, image in enumerate(TRAIN) if image not in DAMAGED]
DATASET = TfdsDataset(
    "oxford_flowers102",
    "train",
    "test[:2]",
    "test",
    len(TRAIN),
    2,
    len(FILES),
    SIDE,
    (SHORTER, CROP),
)


def python(code, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def damage(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.unlink()
    path.write_bytes(content)

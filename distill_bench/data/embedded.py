"""Arrays from files that come inside scikit-learn's wheel: nothing is downloaded.

"digits": the UCI optical digits, 1,797 scans of 8x8, 0 to 16. "photographs": two colour photographs of 427x640 (a Chinese palace and a flower), cut into
520 squares of 32 pixels that do not overlap, their luminance averaged to 8x8; they have no classes.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from distill_bench.errors import UserError

SIDE = 8  # of every image
TILE = 32  # side of a square of a photograph
PEAK = {"digits": 16, "photographs": 255 * (TILE // SIDE) ** 2}
"""The largest value of an image's pixels; the least is 0."""


@functools.lru_cache(maxsize=2)
def arrays(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 8, 8, 1], integers in [0, PEAK[name]], and labels [N], int32.

    Raises:
      UserError: where scikit-learn is not installed.
    """
    # scikit-learn's own files, without importing scikit-learn, which takes a second.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError(
            f"The {name} come with scikit-learn, which is not installed: pip install scikit-learn"
        )
    folder = Path(package.origin).parent / "datasets"
    return _digits(folder) if name == "digits" else _photographs(folder)


def _digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    table = np.loadtxt(folder / "data" / "digits.csv.gz", delimiter=",", dtype=np.float32)
    return table[:, :-1].reshape(-1, SIDE, SIDE, 1).astype(np.uint8), table[:, -1].astype(np.int32)


def _photographs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images = np.concatenate(
        [_tiles(folder / "images" / file) for file in ("china.jpg", "flower.jpg")]
    )
    return images, np.zeros(len(images), np.int32)


def _tiles(path: Path) -> np.ndarray:
    """The whole squares of the photograph, row by row, as [N, 8, 8, 1], uint16: sums over squares of 4 by 4 pixels, so that nothing is rounded."""
    with Image.open(path) as image:
        image.draft(
            "L", image.size
        )  # the luminance as it is stored, without a way through colours that decoders may round differently
        pixels_HW = np.asarray(image, np.uint16)
    rows, columns, part = pixels_HW.shape[0] // TILE, pixels_HW.shape[1] // TILE, TILE // SIDE
    cut = pixels_HW[: rows * TILE, : columns * TILE].reshape(rows, SIDE, part, columns, SIDE, part)
    return cut.sum((2, 5), dtype=np.uint16).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 1)

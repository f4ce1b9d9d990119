"""Images that come inside scikit-learn's wheel, without a download.

"digits": the UCI optical digits, 1,797 scans of 8x8 with values 0 to 16.
"photographs": two colour photographs of 427x640 (a Chinese palace and a flower), cut into 520
squares of 32 pixels that do not overlap; their luminance is averaged to 8x8. They have no classes.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from distill_bench.errors import UserError

SIDE = 8  # side of every image, in pixels
TILE = 32  # side of the squares cut from photographs, in pixels
PEAK = {"digits": 16, "photographs": 255 * (TILE // SIDE) ** 2}
"""The largest possible value of a pixel; the smallest is 0."""


@functools.lru_cache(maxsize=2)
def arrays(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 8, 8, 1], integers in [0, PEAK[name]], and labels [N], int32.

    Raises:
      UserError: if scikit-learn is not installed.
    """
    # Find scikit-learn's files without importing it, which takes a second.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError(
            f"The {name} images come with scikit-learn, which is not installed.\n"
            "Install it: pip install scikit-learn"
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
    """The photograph's complete squares, row by row, as [N, 8, 8, 1], uint16.

    Values are sums over 4 by 4 pixels, so that nothing is rounded.
    """
    with Image.open(path) as image:
        # The luminance as stored in the file: decoders may round its conversion to RGB differently.
        image.draft("L", image.size)
        pixels_HW = np.asarray(image, np.uint16)
    rows, columns, part = pixels_HW.shape[0] // TILE, pixels_HW.shape[1] // TILE, TILE // SIDE
    cut = pixels_HW[: rows * TILE, : columns * TILE].reshape(rows, SIDE, part, columns, SIDE, part)
    return cut.sum((2, 5), dtype=np.uint16).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 1)

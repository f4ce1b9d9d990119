"""From a file's bytes to the pixels that are kept: squeezed squares for training, clean crops for evaluation."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

# What TensorFlow's decode_image reads. PIL knows more formats, some of which start other programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP")


def decode(content: bytes) -> Image.Image:
    """The image in RGB, whatever colours its file has; transparency is dropped and EXIF's rotation ignored, as TensorFlow does.

    Raises:
      Exception: of almost any class, where the file is damaged; its words are PIL's.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            # A palette may hold transparent colours, which PIL takes straight to RGB only with a warning.
            return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    except UnidentifiedImageError:  # whose words hold an address in memory
        raise ValueError(f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file") from None


def squeeze(image: Image.Image, side: int) -> np.ndarray:
    """The whole image as [side, side, 3], uint8: each axis scaled by itself, with a triangle filter as wide as the scale where it shrinks.

    Linear ramps stay linear, so a box in the original, scaled like the image, holds the same content.
    """
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def clean(image: Image.Image, shorter: int, crop: int) -> np.ndarray:
    """The central [crop, crop, 3], uint8, of the image whose shorter side is averaged by area to `shorter` pixels.

    The released evaluation of Beyer et al. 2021 (`resize_small`, then `central_crop`), rounded to the nearest level where it truncates.
    """
    pixels_HWC = np.asarray(image)
    factor = shorter / min(image.size)
    for _ in range(2):  # rows, then columns
        pixels_HWC = _central_average(pixels_HWC, round(pixels_HWC.shape[0] * factor), crop).swapaxes(0, 1)
    return np.rint(pixels_HWC).astype(np.uint8)


def _central_average(pixels_HWC: np.ndarray, height: int, crop: int) -> np.ndarray:
    """The central `crop` of `height` rows, each the mean of an equal, fractional share of the H rows: differences of the running sum."""
    first = (height - crop) // 2
    edges = np.arange(first, first + crop + 1) * (len(pixels_HWC) / height)
    start, stop = int(edges[0]), int(np.ceil(edges[-1]))
    part_HWC, edges = pixels_HWC[start:stop], edges - start
    sums_HWC = np.cumsum(part_HWC, axis=0, dtype=np.float64)
    row = np.minimum(edges.astype(np.intp), len(part_HWC) - 1)
    # The sum up to an edge: all of the row that it lies in, less what of this row is beyond it.
    at_edges = sums_HWC[row] - (row + 1 - edges)[:, None, None] * part_HWC[row]
    return np.diff(at_edges, axis=0) * (height / len(pixels_HWC))

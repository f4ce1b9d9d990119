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


def cut(image: Image.Image, box_4: np.ndarray, size: int) -> np.ndarray:
    """The box (top, left, height, width, in pixels, not rounded) of the image as [size, size, 3], uint8: bilinear, without antialiasing."""
    top, left, height, width = map(float, box_4)
    extent = left, top, min(left + width, image.width), min(top + height, image.height)
    if (
        max(height, width) <= size
    ):  # nothing shrinks, so the faster filter does not average either: the same to a level
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, extent))
    return np.asarray(
        image.transform((size, size), Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR)
    )


def clean(image: Image.Image, shorter: int, crop: int) -> np.ndarray:
    """The central [crop, crop, 3], uint8, of the image whose shorter side is averaged by area to `shorter` pixels.

    The released evaluation of Beyer et al. 2021 (`resize_small`, then `central_crop`), rounded to the nearest level where it truncates.
    """
    factor = shorter / min(image.size)
    rows, columns = (
        _edges(side, round(side * factor), crop) for side in (image.height, image.width)
    )
    pixels_HWC = np.asarray(image)[_span(rows), _span(columns)]
    for edges in (rows, columns):
        pixels_HWC = _means(pixels_HWC, edges - int(edges[0])).swapaxes(0, 1)
    return np.rint(pixels_HWC).astype(np.uint8)


def _edges(side: int, resized: int, crop: int) -> np.ndarray:
    """Where the central `crop` of `resized` equal shares of a side begin and end: crop + 1 places."""
    first = (resized - crop) // 2
    return np.arange(first, first + crop + 1) * (side / resized)


def _span(edges: np.ndarray) -> slice:
    return slice(int(edges[0]), int(np.ceil(edges[-1])))


def _means(pixels_HWC: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of the rows between each edge and the next, which may lie within rows: differences of the running sum."""
    sums_HWC = np.cumsum(pixels_HWC, axis=0)  # bytes add up exactly, in 64 bits
    row = np.minimum(edges.astype(np.intp), len(pixels_HWC) - 1)
    # The sum up to an edge: all of the row that it lies in, less what of this row is beyond it.
    at_edges = sums_HWC[row] - (row + 1 - edges)[:, None, None] * pixels_HWC[row]
    return np.diff(at_edges, axis=0) / np.diff(edges)[:, None, None]

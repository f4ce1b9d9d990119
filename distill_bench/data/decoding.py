"""From a file's bytes to pixels: squeezed squares for training, clean crops for evaluation."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

# The formats of TensorFlow's decode_image. PIL knows more, some of which start other programs.
FORMATS = ("JPEG", "PNG", "GIF", "BMP")


def decode(content: bytes) -> Image.Image:
    """The image in RGB, whatever the file's colour space.

    Drops transparency and ignores EXIF's rotation, as TensorFlow does.

    Raises:
      Exception: of almost any class, with PIL's message, if the file is damaged.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            # By way of RGBA: PIL warns if a palette with transparent colours goes straight to RGB.
            return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    except UnidentifiedImageError:  # its message contains a memory address
        raise ValueError(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file") from None


def squeeze(image: Image.Image, side: int) -> np.ndarray:
    """The whole image as [side, side, 3], uint8, each axis scaled on its own.

    An axis that shrinks is averaged by a triangle filter as wide as the scale. Linear ramps stay
    linear, so that a box in the original, scaled like the image, holds the same content.
    """
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def cut(image: Image.Image, box_4: np.ndarray, size: int) -> np.ndarray:
    """A box of the image as [size, size, 3], uint8; bilinear, without antialiasing.

    box_4: (top, left, height, width) in pixels, not rounded.
    """
    top, left, height, width = map(float, box_4)
    extent = left, top, min(left + width, image.width), min(top + height, image.height)
    # If nothing shrinks, the faster filter does not average either: they agree to one grey level.
    if max(height, width) <= size:
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, extent))
    return np.asarray(
        image.transform((size, size), Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR)
    )


def clean(image: Image.Image, shorter: int, crop: int) -> np.ndarray:
    """Resizes the shorter side to `shorter` pixels by area average and crops the centre.

    The result is [crop, crop, 3], uint8. This is the released evaluation of Beyer et al. 2021
    (`resize_small`, then `central_crop`), except that it rounds to the nearest level; theirs
    truncates.
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
    """Edges [crop + 1], in pixels, of the central `crop` output pixels on one side of the image.

    The side is cut into `resized` equal parts, one for each output pixel.
    """
    first = (resized - crop) // 2
    return np.arange(first, first + crop + 1) * (side / resized)


def _span(edges: np.ndarray) -> slice:
    return slice(int(edges[0]), int(np.ceil(edges[-1])))


def _means(pixels_HWC: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of the rows between each edge and the next, by differences of the running sum.

    An edge may lie within a row.
    """
    sums_HWC = np.cumsum(pixels_HWC, axis=0)  # exact: bytes are summed in 64 bits
    row = np.minimum(edges.astype(np.intp), len(pixels_HWC) - 1)
    # The sum up to an edge: through the end of the edge's row, minus the part beyond the edge.
    at_edges = sums_HWC[row] - (row + 1 - edges)[:, None, None] * pixels_HWC[row]
    return np.diff(at_edges, axis=0) / np.diff(edges)[:, None, None]

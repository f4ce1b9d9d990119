"""Reads IDX files, in which MNIST and Fashion-MNIST were published.

Two zero bytes, the type of the elements (8 for bytes), the number of axes, the length of each axis
(4 bytes, highest first), then the elements, last axis fastest.
Source: http://yann.lecun.com/exdb/mnist
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

_BYTES = 8  # the type of unsigned bytes


class Damaged(ValueError):
    """The content is not a whole IDX file of bytes; the message says why."""


def content_of(path: Path) -> bytes:
    """The file's bytes, decompressed if its name ends in .gz.

    Raises:
      Damaged: if it cannot be decompressed.
      OSError: if it cannot be read.
    """
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(f"it cannot be decompressed ({error})") from None


def parse(content: bytes) -> np.ndarray:
    """The array in an IDX file of bytes, uint8.

    Raises:
      Damaged: if it is something else, or has another length than its header says.
    """
    if len(content) < 4 or content[:3] != bytes([0, 0, _BYTES]):
        raise Damaged("it is not an IDX file of bytes")
    header = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    if len(content) != header + math.prod(shape):
        raise Damaged(
            f"it has {len(content):,} bytes, but its header announces {header + math.prod(shape):,}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)

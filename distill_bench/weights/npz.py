"""The arrays of an .npz that others wrote, judged by their headers before any of them is unpacked."""

from __future__ import annotations

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np

from distill_bench.weights.formats import Shape, Unfit

_FLOATS = {np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)}
_BFLOAT16 = np.dtype(
    "V2"
)  # numpy's format knows no bfloat16: it arrives as two bytes without a meaning
_BROKEN = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_NO_HEADER = (
    TypeError,
    SyntaxError,
    IndexError,
    MemoryError,
    tokenize.TokenError,
)  # what numpy lets through of text that is no header


class Npz:
    """An open .npz: `names` of its arrays, `shape` of one from its header, `read` for one at a time, as float32."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(self._members) < len(archive.infolist()):
            raise Unfit("holds two arrays of the same name.")
        self.names = list(self._members)

    def shape(self, name: str) -> Shape:
        """The array's shape.

        Raises:
          Unfit: where it is not made of floating-point numbers, or its size is not the one that its header announces.
        """
        info = self._members[name]
        with self._archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise Unfit(
                    f"holds {name} in version {version} of numpy's format, which no array of numbers needs."
                )
            try:
                shape, _, dtype = _HEADERS[version](file)
            except _NO_HEADER as error:
                raise Unfit(
                    f"holds {name} under a header that cannot be read ({type(error).__name__}: {error})."
                ) from None
            begins = file.tell()
        if dtype.newbyteorder("=") not in _FLOATS and dtype != _BFLOAT16:
            raise Unfit(
                f"holds {name} as {dtype}; wanted are float16, bfloat16, float32 or float64."
            )
        announced = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if info.file_size - begins != announced:
            raise Unfit(
                f"holds {info.file_size - begins} bytes for {name}, whose header announces {announced}."
            )
        return shape

    def read(self, name: str) -> np.ndarray:
        """The array as float32.

        Raises:
          Unfit: where a number is not finite, or too large for float32.
        """
        with self._archive.open(self._members[name]) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
        array = array.view(ml_dtypes.bfloat16) if array.dtype == _BFLOAT16 else array
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        if bad := array.size - np.count_nonzero(np.isfinite(array)):
            raise Unfit(f"holds {bad} numbers in {name} that are not finite as float32.")
        return array


@contextmanager
def open_npz(path: Path) -> Iterator[Npz]:
    """The file at `path`; nothing is unpickled, ever.

    Raises:
      Unfit: where it cannot be read, here or inside the `with` block.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Npz(archive)
    except _BROKEN as error:
        raise Unfit(f"cannot be read as an .npz ({type(error).__name__}: {error}).") from None

"""Reads an .npz of unknown origin: checks sizes and headers before unpacking anything."""

from __future__ import annotations

import lzma
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np

from distill_bench.weights.formats import Shape, Unfit

_FLOATS = {np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)}
_BFLOAT16 = np.dtype("V2")  # numpy's file format stores bfloat16 as two bytes of unknown type
_BROKEN = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_MOST_UNPACKED = 20  # times the size of the file; trained weights hardly compress at all
_CHUNK = 2**20  # bytes
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# Errors, beyond ValueError, that numpy raises for text that is not a header.
_BAD_HEADER = (TypeError, SyntaxError, IndexError, MemoryError, tokenize.TokenError)


class Npz:
    """An open .npz.

    Attributes:
      names: names of its arrays.
    """

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(self._members) < len(archive.infolist()):
            raise Unfit("holds two arrays of the same name.")
        self._check_size()
        self.names = list(self._members)

    def _check_size(self) -> None:
        """Refuses an archive whose arrays would need far more memory than the file has bytes."""
        assert self._archive.fp
        packed = self._archive.fp.seek(0, os.SEEK_END)
        unpacked = sum(info.file_size for info in self._members.values())
        if unpacked > _MOST_UNPACKED * packed:
            raise Unfit(
                f"has {packed:,} bytes and claims to hold {unpacked:,}, which is more than "
                f"{_MOST_UNPACKED} times as many. No trained weights compress like that."
            )

    def verify(self) -> None:
        """Reads every array once, so that zipfile compares its content with its CRC.

        Raises:
          zipfile.BadZipFile: if they differ; `open_npz` turns it into Unfit.
        """
        for info in self._members.values():
            with self._archive.open(info) as file:
                while file.read(_CHUNK):
                    pass

    def shape(self, name: str) -> Shape:
        """The array's shape, from its header.

        Raises:
          Unfit: if its elements are not floating-point numbers, or if its size is not the one that
            the header states.
        """
        info = self._members[name]
        with self._archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                raise Unfit(
                    f"holds {name} in version {version} of numpy's format; "
                    "arrays of numbers have version (1, 0) or (2, 0)."
                )
            try:
                shape, _, dtype = _HEADERS[version](file)
            except _BAD_HEADER as error:
                raise Unfit(
                    f"holds {name} with a header that cannot be read "
                    f"({type(error).__name__}: {error})."
                ) from None
            header_size = file.tell()
        if dtype.newbyteorder("=") not in _FLOATS and dtype != _BFLOAT16:
            raise Unfit(f"holds {name} as {dtype}; expected float16, bfloat16, float32 or float64.")
        stated = int(np.prod(shape, dtype=object)) * dtype.itemsize
        size = info.file_size - header_size
        if size != stated:
            raise Unfit(f"holds {size} bytes for {name}, whose header states {stated}.")
        return shape

    def read(self, name: str) -> np.ndarray:
        """The array as float32.

        Raises:
          Unfit: if a number is not finite or too large for float32.
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
def open_npz(source: Path | IO[bytes]) -> Iterator[Npz]:
    """Opens an .npz, at a path or in an open file. Nothing is ever unpickled.

    Raises:
      Unfit: if the file cannot be read, here or inside the `with` block.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            yield Npz(archive)
    except _BROKEN as error:
        raise Unfit(f"cannot be read as an .npz ({type(error).__name__}: {error}).") from None


def verify(path: Path) -> None:
    """Checks that the .npz at `path` is whole; needs little memory.

    Raises:
      Unfit: if it is not an .npz, claims to hold far more than it can, or an array does not have
        the CRC that the file states.
    """
    with open_npz(path) as file:
        file.verify()

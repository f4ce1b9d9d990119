"""Decodes the images of a split on all cores and appends them, in order, to .npy files."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from distill_bench.data import decoding
from distill_bench.data.dataset import TfdsDataset
from distill_bench.data.records import Examples
from distill_bench.errors import UserError
from distill_bench.machine import core_count

_AHEAD = 8  # images in progress for each core, so that a large image does not hold up the others
Fields = dict[str, tuple[tuple[int, ...], np.dtype]]


@dataclass(frozen=True)
class Packed:
    """What was written for a split.

    Attributes:
      arrays: shape, dtype and sha256 of each array, as plain data for the manifest.
      damaged: one line for each damaged image.
    """

    arrays: dict[str, dict[str, Any]]
    damaged: list[str]


@dataclass(frozen=True)
class _DecodedImage:
    """What is kept of one image.

    Attributes:
      key: name of the image's file.
      arrays: one row for each array; empty if the image is damaged.
      reason: why the image cannot be decoded; None if it can.
    """

    key: str
    arrays: dict[str, np.ndarray]
    reason: str | None = None


def fields(dataset: TfdsDataset, split: str) -> Fields:
    """Shape of a row and dtype of each array of the split "train", "validation" or "test".

    If images are not kept squeezed, "records" says which record of the split holds the image.
    """
    side, crop = dataset.side, dataset.clean[1]
    kept: Fields = {"labels": ((), np.dtype("<i4")), "sizes": ((2,), np.dtype("<f4"))}
    kept |= (
        {"records": ((), np.dtype("<i4"))}
        if side is None
        else {"images": ((side, side, 3), np.dtype("u1"))}
    )
    return kept if split == "train" else kept | {"clean": ((crop, crop, 3), np.dtype("u1"))}


def pack(
    dataset: TfdsDataset,
    split: str,
    examples: Examples,
    path: Callable[[str], Path],
    report: Callable[[str], None],
) -> Packed:
    """Writes each array of the split to the file path(field), without the damaged images.

    report: called with a line of text after each tenth of the images.

    Raises:
      UserError: if a record cannot be read, or if none of the images can be decoded.
    """
    kept, damaged = fields(dataset, split), []

    def row(index: int) -> _DecodedImage:
        example = examples[index]
        try:
            image = decoding.decode(example.image)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can raise almost any class in PIL
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return _DecodedImage(example.key, {}, reason)
        make = {
            "images": lambda: decoding.squeeze(image, dataset.side or 0),
            "records": lambda: np.array(index),
            "labels": lambda: np.array(example.label),
            "sizes": lambda: np.array([image.height, image.width]),
            "clean": lambda: decoding.clean(image, *dataset.clean),
        }
        return _DecodedImage(example.key, {field: make[field]() for field in kept})

    with ExitStack() as stack:
        files = {field: stack.enter_context(_Npy(path(field), *kept[field])) for field in kept}
        for index, image_row in enumerate(_in_order(row, len(examples))):
            if image_row.reason is not None:
                damaged.append(f"{split}\t{index}\t{image_row.key}\t{image_row.reason}\n")
            for field, array in image_row.arrays.items():
                files[field].append(array)
            if (done := (index + 1) * 10 // len(examples)) > index * 10 // len(examples):
                report(f"  {split}: {done * 10} %, {index + 1} of {len(examples)} images")
    if len(damaged) == len(examples):
        raise UserError(
            f"None of the {len(examples)} images of {split} can be decoded. "
            f"The first: {damaged[0].strip()}\n"
            "Move the folder of the published files away and prepare the data set again."
        )
    return Packed({field: file.about() for field, file in files.items()}, damaged)


def _in_order(work: Callable[[int], _DecodedImage], n: int) -> Iterator[_DecodedImage]:
    """Yields work(0), ..., work(n - 1) and works a few ahead on each core.

    Threads suffice, because PIL and numpy release Python's global lock.
    """
    cores = core_count()
    ahead: deque[Future[_DecodedImage]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        try:
            for index in range(n):
                ahead.append(pool.submit(work, index))
                if len(ahead) == cores * _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Npy:
    """A .npy file that grows row by row.

    Closing it writes the final header over the first one; numpy pads headers to allow this.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype, self._rows, self._digest = shape, dtype, 0, hashlib.sha256()
        self._file = open(path, "xb")  # noqa: SIM115 - closed by __exit__
        self._write_header()

    def _write_header(self) -> None:
        about = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._rows, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, about)

    def append(self, row: np.ndarray) -> None:
        content = np.ascontiguousarray(row.reshape(self._shape), self._dtype).tobytes()
        self._file.write(content)
        self._digest.update(content)
        self._rows += 1

    def about(self) -> dict[str, Any]:
        return {
            "shape": [self._rows, *self._shape],
            "dtype": self._dtype.str,
            "sha256": self._digest.hexdigest(),
        }

    def __enter__(self) -> _Npy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._write_header()
                self._file.flush()
                os.fsync(self._file.fileno())

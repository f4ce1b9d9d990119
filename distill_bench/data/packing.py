"""Decodes a split on all cores and appends it, in its order, to .npy files."""

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
from distill_bench.data.tfds_records import Records
from distill_bench.errors import UserError

_AHEAD = 8  # images in hand for each core: enough that one large image holds up no other
Fields = dict[str, tuple[tuple[int, ...], np.dtype]]


@dataclass(frozen=True)
class Packed:
    """What was written of a split: of each array its shape, type and digest, in plain data, and a line for each damaged image."""

    arrays: dict[str, dict[str, Any]]
    damaged: list[str]


@dataclass(frozen=True)
class _DecodedImage:
    """What is kept of an image, a row of each array; where it is damaged, none, and the reason."""

    key: str
    arrays: dict[str, np.ndarray]
    reason: str | None = None


def fields(dataset: TfdsDataset, split: str) -> Fields:
    """The arrays of "train", "validation" or "test": the shape of a row, and the type.

    "records" is where in TFDS's own split the image is, which is read from there where it is not kept squeezed.
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
    examples: Records,
    path: Callable[[str], Path],
    say: Callable[[str], None],
) -> Packed:
    """Writes each array of the split at path(field), without the damaged images, and says every tenth of it how far it is.

    Raises:
      UserError: where a record cannot be read, or no image decoded.
    """
    kept, damaged = fields(dataset, split), []

    def row(index: int) -> _DecodedImage:
        example = examples[index]
        try:
            image = decoding.decode(example.image)
        except MemoryError:
            raise
        except Exception as error:  # PIL lets through whatever a damaged file trips over
            return _DecodedImage(
                example.key, {}, " ".join(f"{type(error).__name__}: {error}".split())
            )
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
        for index, made in enumerate(_in_order(row, len(examples))):
            if made.reason is not None:
                damaged.append(f"{split}\t{index}\t{made.key}\t{made.reason}\n")
            for field, array in made.arrays.items():
                files[field].append(array)
            if (done := (index + 1) * 10 // len(examples)) > index * 10 // len(examples):
                say(f"  {split}: {done * 10} %, {index + 1} of {len(examples)} images")
    if len(damaged) == len(examples):
        raise UserError(
            f"None of the {len(examples)} images of {split} can be decoded; the first: {damaged[0].strip()}"
        )
    return Packed({field: file.about() for field, file in files.items()}, damaged)


def _in_order(work: Callable[[int], _DecodedImage], n: int) -> Iterator[_DecodedImage]:
    """work(0) ... work(n - 1), a few ahead on each core. Threads suffice: PIL and numpy work outside of Python's lock."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
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
    """A .npy file that grows by rows; its header, whose length numpy keeps free for this, is set right when it is closed."""

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

"""Images in TFRecord files, which the user copies from where they were published.

`<data set>/<split>/<split>_<anything>-<number of the shard>-<number of records>.tfrec`, with shards
from 0 on. A record is a tf.train.Example with the features "image" (one encoded image) and "class"
(one integer). The file gives for each record the length of its data (8 bytes, lowest first), a
checksum of these bytes (4), the data, and a checksum of the data (4).
Source: https://www.tensorflow.org/tutorials/load_data/tfrecord

Reading them needs no TensorFlow.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_bench.data.crc32c import crc32c
from distill_bench.data.dataset import TfdsDataset
from distill_bench.data.records import Example
from distill_bench.errors import UserError

_HEADER, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")


def find(dataset: TfdsDataset, data_dir: Path) -> Path | None:
    """The folder of the data set if each of its splits has a file there, else None."""
    return None if _missing(dataset, data_dir) else data_dir / dataset.name


def make(dataset: TfdsDataset, data_dir: Path, manual_dir: Path | None) -> Path:
    """Says what the user must copy; nothing can be made here.

    Raises:
      UserError: always.
    """
    folder, missing = data_dir / dataset.name, _missing(dataset, data_dir)
    raise UserError(
        f"{dataset.name} is read from TFRecord files, and {folder} has no .tfrec file in "
        f"{', '.join(f'{split}/' for split in missing)}.\n"
        f"Copy {', '.join(f'{dataset.tfrecords}/{split}' for split in missing)} to {folder}."
    )


def _missing(dataset: TfdsDataset, data_dir: Path) -> list[str]:
    """The splits without a file."""
    splits = dict.fromkeys((dataset.train, dataset.validation, dataset.test))
    return [split for split in splits if not any((data_dir / dataset.name / split).glob("*.tfrec"))]


def version(folder: Path) -> str:
    """A digest of the names and sizes of all files."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path.stat().st_size)
        for path in folder.glob("*/*.tfrec")
    )
    return hashlib.sha256(repr(files).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Place:
    """Where the data of one record lies: `length` bytes from byte `start` on.

    number: the record's number in the file, from 0 on.
    """

    path: Path
    number: int
    start: int
    length: int

    def __str__(self) -> str:
        return f"{self.path.name}, record {self.number}"


class Records:
    """One split's examples in the order of shards; several threads may index it at once.

    Raises:
      UserError: names the file and says why, if the split does not hold `size` examples, if a shard
        is missing, incomplete or damaged, or if another file is among them; when indexed, if a
        record is damaged or not an image with its class.
    """

    def __init__(self, folder: Path, split: str, size: int) -> None:
        from tensorflow_datasets import proto

        modules: Any = proto  # protobuf makes its classes when it is imported
        self._parse = modules.tf_example_pb2.Example.FromString
        shards = _shards(folder / split, split)
        if (found := sum(shards.values())) != size:
            raise UserError(
                f"{folder / split} has {found} images in {len(shards)} files, according to their "
                f"names; the task's has {size}.\n"
                "Copy the whole folder again from where it was published."
            )
        self._places = [
            place for path, count in shards.items() for place in _places(path, expected=count)
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        place = self._places[index]
        content = _read(place)
        try:
            features = self._parse(content).features.feature
            (image,) = features["image"].bytes_list.value
            (label,) = features["class"].int64_list.value
        except Exception as error:  # protobuf's DecodeError, or another number of values
            raise _unreadable(
                place.path,
                f'record {place.number} is not a tf.train.Example with one "image" and one "class" '
                f"({type(error).__name__}: {error})",
            ) from error
        if not 0 <= label < 2**31:
            raise _unreadable(place.path, f"record {place.number} has the class {label}")
        return Example(image, label, str(place))


def _shards(folder: Path, split: str) -> dict[Path, int]:
    """The files in the order of their numbers, and how many records their names promise.

    Raises:
      UserError: if the folder cannot be read, holds another file, or lacks one in between.
    """
    found: dict[int, tuple[Path, int]] = {}
    for path in _visible(folder):
        name = re.fullmatch(rf"{re.escape(split)}_.+-([0-9]+)-([0-9]+)\.tfrec", path.name)
        if name is None or int(name[1]) in found:
            raise UserError(
                f"{path} does not belong to the data set. Files there are named "
                f"{split}_...-<number of the shard>-<number of records>.tfrec, and each shard has "
                "another number.\nMove it away."
            )
        found[int(name[1])] = path, int(name[2])
    first_absent = next(number for number in itertools.count() if number not in found)
    if first_absent < max(len(found), 1):
        raise UserError(
            f"{folder} lacks shard {first_absent}, "
            f"{split}_...-{first_absent}-<number of records>.tfrec.\n"
            "Copy the whole folder again from where it was published."
        )
    return dict(found[number] for number in range(first_absent))


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise _unreadable(folder, str(error.strerror)) from None


def _places(path: Path, expected: int) -> list[Place]:
    """The places of the records, of which the lengths are verified, but not yet the data.

    Raises:
      UserError: if the file is damaged, or has another number of records than expected.
    """
    places = list(walk(path))
    if len(places) != expected:
        raise _unreadable(path, f"it has {len(places)} records, but its name says {expected}")
    return places


def walk(path: Path) -> Iterator[Place]:
    try:
        with path.open("rb") as file:
            start, end, number = 0, os.fstat(file.fileno()).st_size, 0
            while start < end:
                file.seek(start)
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    raise _unreadable(path, f"it ends within the header of record {number}")
                length, checksum = _HEADER.unpack(header)
                if checksum != _masked(header[:8]):
                    raise _unreadable(
                        path,
                        f"the length of record {number} does not have its checksum: the file is "
                        "damaged or not a TFRecord file",
                    )
                start += _HEADER.size
                if start + length + _CHECKSUM.size > end:
                    raise _unreadable(path, f"it ends within record {number}")
                yield Place(path, number, start, length)
                start, number = start + length + _CHECKSUM.size, number + 1
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from None


def _read(place: Place) -> bytes:
    """The data of a record, verified."""
    try:
        with place.path.open("rb") as file:
            file.seek(place.start)
            content = file.read(place.length + _CHECKSUM.size)
    except OSError as error:
        raise _unreadable(place.path, str(error.strerror)) from None
    data, checksum = content[: place.length], content[place.length :]
    if checksum != _CHECKSUM.pack(_masked(data)):
        raise _unreadable(place.path, f"the data of record {place.number} do not have its checksum")
    return data


def _masked(content: bytes) -> int:
    """The checksum as TFRecord files store it: rotated and shifted, because data may hold CRCs."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} cannot be read: {reason}.\nCopy it again from where it was published."
    )

"""Small images that TFDS has prepared, whichever of its two usual formats it wrote.

Neither TensorFlow nor the data set's TFDS builder is needed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distill_bench.data import tfds_records, tfrecords
from distill_bench.errors import UserError


def find(folder: Path) -> Path | None:
    """The folder of the newest version that TFDS has prepared in `folder`, or None."""
    versions = [path.parent for path in folder.glob("*/dataset_info.json")]
    return max(versions, key=tfds_records.numbers, default=None)


def read(folder: Path, name: str, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey images [size, H, W] and labels [size], uint8, in TFDS's order.

    Args:
      folder: what `find` returned.
      name: TFDS's name of the data set.
      size: number of images that the split must have.

    Raises:
      UserError: if the split cannot be read or has another number of images.
    """
    files = sorted(folder.glob(f"{name}-{split}.tfrecord-*"))
    found = _of_tfrecords(files) if files else _of_array_records(folder, split, size)
    images, labels = [], []
    try:
        for image, label in found:
            with Image.open(io.BytesIO(image), formats=("PNG",)) as opened:
                images.append(np.asarray(opened.convert("L")))
            labels.append(label)
        if len(images) != size:
            raise ValueError(f"it has {len(images):,} images, not {size:,}")
        return np.stack(images), np.array(labels, np.uint8)
    except UserError:
        raise
    except Exception as error:  # PIL and protobuf raise almost any class
        raise UserError(
            f"{split} of {folder} cannot be read: {error}\nMove that folder away, and let TFDS "
            "prepare it again, or get the published files."
        ) from error


def _of_array_records(folder: Path, split: str, size: int) -> Iterator[tuple[bytes, int]]:
    records = tfds_records.Records(folder, split, size)
    return ((one.image, one.label) for one in (records[i] for i in range(size)))


def _of_tfrecords(files: list[Path]) -> Iterator[tuple[bytes, int]]:
    from tensorflow_datasets import proto

    modules: Any = proto  # protobuf makes its classes when it is imported
    parse = modules.tf_example_pb2.Example.FromString
    for path in files:
        content = path.read_bytes()
        for place in tfrecords.walk(path):
            features = parse(content[place.start : place.start + place.length]).features.feature
            (image,) = features["image"].bytes_list.value
            (label,) = features["label"].int64_list.value
            yield image, label

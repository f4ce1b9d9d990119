"""TFDS's own files of a data set: encoded images in array_record.

Making them needs TensorFlow; reading them does not.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from distill_bench.data.dataset import TfdsDataset
from distill_bench.data.records import Example
from distill_bench.errors import UserError

FORMAT = "array_record"
_KEYS = ("file_name", "id")  # features that may hold the name of an image's file


def find(dataset: TfdsDataset, data_dir: Path) -> Path | None:
    """The folder of the newest version that TFDS has made in array_record, or None."""
    versions = [
        path.parent
        for path in (data_dir / dataset.name).glob("*/dataset_info.json")
        if FORMAT in _formats(path)
    ]
    return max(versions, key=numbers, default=None)


def _formats(path: Path) -> list[str]:
    try:
        info = json.loads(path.read_text())
        return [info.get("fileFormat", ""), *info.get("alternativeFileFormats", [])]
    except (OSError, ValueError, AttributeError):
        return []


def numbers(folder: Path) -> list[int]:
    return [int(part) if part.isdecimal() else -1 for part in folder.name.split(".")]


def make(dataset: TfdsDataset, data_dir: Path, manual_dir: Path | None) -> Path:
    """Lets TFDS download the data set and write it as array_record files; returns their folder.

    manual_dir: folder of the archives that TFDS may not download; None for TFDS's default.

    Raises:
      UserError: if TensorFlow is not installed, if TFDS fails, or if TFDS has already made the data
        set in another format.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            f"Making {dataset.name} needs TensorFlow, which is not installed.\n"
            "Reading it does not. Install TensorFlow: pip install 'distill-bench[prepare]'"
        )
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    try:
        builder: Any = tfds.builder(dataset.name, data_dir=data_dir)
        builder.download_and_prepare(download_config=config, file_format=FORMAT)
    except Exception as error:  # anything may go wrong between here and a university's server
        raise UserError(
            f"TFDS could not make {dataset.name} in {data_dir}: {type(error).__name__}: {error}"
        ) from error
    found = find(dataset, data_dir)
    if found is None:
        raise UserError(
            f"{builder.data_path} holds {dataset.name} in another format than {FORMAT}.\n"
            "Move that folder away and try again. "
            f"TFDS reuses what it has downloaded to {data_dir / 'downloads'}."
        )
    return found


def version(folder: Path) -> str:
    """TFDS's version of the data set."""
    return folder.name


class Records:
    """One split's examples in TFDS's order; several threads may index it at once.

    Raises:
      UserError: if the split is missing or does not hold `size` examples; when indexed, if its
        files are damaged.
    """

    def __init__(self, folder: Path, split: str, size: int) -> None:
        import tensorflow_datasets as tfds

        self._folder, self._split = folder, split
        try:
            builder: Any = tfds.builder_from_directory(folder)
            # Decode nothing, not even masks: one that TFDS cannot decode would end the reading.
            decoders = {
                key: tfds.decode.SkipDecoding()
                for key, feature in builder.info.features.items()
                if isinstance(feature, tfds.features.Image)
            }
            self._source = builder.as_data_source(split=split, decoders=decoders)
        except Exception as error:  # a missing split or file raises almost any class
            raise self._unreadable(error) from error
        if len(self._source) != size:
            raise UserError(
                f"{split} of {folder} has {len(self._source)} images; the task's has {size}.\n"
                "It is another version of the data set, or only a part was made: "
                "move that folder away and prepare the data set again."
            )

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        try:
            example = self._source[index]
            key = next((example[name] for name in _KEYS if name in example), b"")
            return Example(example["image"], int(example["label"]), key.decode())
        except Exception as error:  # array_record's errors have no class of their own
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(
            f"{self._split} of {self._folder} cannot be read: {type(error).__name__}: {error}\n"
            "Move that folder away and prepare the data set again."
        )

"""The encoded images of a data set, as its files hold them, and what a reader of them offers.

There are two readers: tfds_records.py and tfrecords.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distill_bench.data.dataset import TfdsDataset


@dataclass(frozen=True)
class Example:
    """One image as it was published.

    Attributes:
      image: encoded bytes.
      label: class.
      key: name of the image's file, or where it is in another one; "" if the data set does not say.
    """

    image: bytes
    label: int
    key: str


class Examples(Protocol):
    """One split's examples in the data set's order; several threads may index it at once."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Example: ...


class Reader(Protocol):
    """A module that reads one kind of files. All its errors are UserErrors."""

    def find(self, dataset: TfdsDataset, data_dir: Path) -> Path | None:
        """The folder with the data set's files, or None if they are not in `data_dir`."""
        ...

    def make(self, dataset: TfdsDataset, data_dir: Path, manual_dir: Path | None) -> Path:
        """Makes what `find` did not find and returns its folder, or says what the user must do."""
        ...

    def version(self, folder: Path) -> str:
        """The version of the files in `folder`; indices into other versions are worthless."""
        ...

    @property
    def Records(self) -> Callable[[Path, str, int], Examples]:
        """Opens a split: (folder, split, number of images that it must have)."""
        ...

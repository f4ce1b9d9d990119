"""Data sets and their splits.

The embedded data sets come inside scikit-learn's wheel, without a download (embedded.py).
Fashion-MNIST is four files (fashion_mnist.py). Those of TensorFlow Datasets (TFDS) are prepared
once:

python -m distill_bench.data prepare --task=flowers102
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from distill_bench.errors import UserError

if TYPE_CHECKING:  # imported in the functions that use it, so that --help needs no numpy
    import numpy as np


@dataclass(frozen=True)
class Dataset:
    """An embedded data set of grey images and its frozen split.

    Attributes:
      name: "digits" or "photographs"; see embedded.py.
      train_size: number of images in the train split; the other images are the test split.
      split_seed: seed of the permutation that splits, drawn by `numpy.random.RandomState`, whose
        stream numpy keeps the same in all versions.
      sha256: digest of images and labels as loaded, so that another release of scikit-learn cannot
        change the task unnoticed.
    """

    name: str
    train_size: int
    split_seed: int
    sha256: str

    @property
    def channels(self) -> int:
        return 1


@dataclass(frozen=True)
class FashionMnist:
    """Fashion-MNIST, or the first images of its splits.

    Attributes:
      name: TFDS's name of it.
      train_size, test_size: number of images taken from each published split.
      order_seed: seed of the permutation of each split, drawn by `numpy.random.RandomState`.
      sha256: digest of both whole splits, before the permutation.
    """

    name: str
    train_size: int
    test_size: int
    order_seed: int
    sha256: str

    @property
    def channels(self) -> int:
        return 1


@dataclass(frozen=True)
class TfdsDataset:
    """A data set of TensorFlow Datasets, with the paper's splits.

    Attributes:
      name: TFDS's name, with the config if there are several, such as "sun397/tfds".
      train, validation, test: the splits in TFDS's notation, such as "train[:90%]"; the names of
        their folders if they are TFRecord files.
      train_size, validation_size, test_size: number of images in each split.
      side: side in pixels of the squares to which images are squeezed; None to keep the published
        files.
      clean: (shorter side, central crop) of the clean test images, in pixels.
      in_memory: decode all training files once and keep their pixels on the device; otherwise they
        are read and decoded again for each view. Squeezed images are always in memory.
      tfrecords: address of the published folders of TFRecord files that hold the images, for the
        user to copy; None if TFDS makes the data set.
    """

    name: str
    train: str
    validation: str
    test: str
    train_size: int
    validation_size: int
    test_size: int
    side: int | None
    clean: tuple[int, int]
    in_memory: bool = False
    tfrecords: str | None = None

    @property
    def channels(self) -> int:
        return 3


AnyDataset = Dataset | FashionMnist | TfdsDataset


class Files(Protocol):
    """Encoded images; several threads may read them at once."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> bytes: ...


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
      images: [N, H, W, C], float32 in [-1, 1] or uint8; or N encoded files.
      labels: [N], int32.
      sizes: [N, 2], float32, height and width in pixels that each image had before it was squeezed
        to [H, W]; None if the images were not squeezed.
      clean: [N, h, w, C], same dtype as `images`, the images as evaluation uses them; None if
        evaluation uses `images`.
    """

    images: np.ndarray | Files
    labels: np.ndarray
    sizes: np.ndarray | None = None
    clean: np.ndarray | None = None


def digest(images: np.ndarray, labels: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def load_embedded(dataset: Dataset) -> tuple[Split, Split]:
    """The (train, test) splits, scaled to [-1, 1].

    Raises:
      UserError: if the installed images are not those of the task.
    """
    import numpy as np

    from distill_bench.data import embedded

    images, labels = embedded.arrays(dataset.name)
    if (found := digest(images, labels)) != dataset.sha256:
        raise UserError(
            f"The {dataset.name} images on this machine are not those of the task: "
            f"sha256 {found[:16]}, expected {dataset.sha256[:16]}.\n"
            "Install the tested versions: pip install -c constraints.txt scikit-learn pillow"
        )
    order = np.random.RandomState(dataset.split_seed).permutation(len(images))
    scaled = images.astype(np.float32) / (embedded.PEAK[dataset.name] / 2) - 1
    parts = order[: dataset.train_size], order[dataset.train_size :]
    train, test = (Split(scaled[i], labels[i]) for i in parts)
    return train, test

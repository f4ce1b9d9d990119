"""Arrays and splits. Some come inside scikit-learn's wheel (embedded.py): nothing is downloaded. The data sets of TFDS are prepared once:

python -m distill_bench.data prepare --task=flowers102
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from distill_bench.errors import UserError

if TYPE_CHECKING:  # imported where it is used: the command tells of itself without it
    import numpy as np


@dataclass(frozen=True)
class Dataset:
    """An embedded data set of grey images and its frozen split.

    Attributes:
      name: "digits" or "photographs", see embedded.py.
      train_size: images in the train split; the others are the test split.
      split_seed: seed of the permutation that splits, by `numpy.random.RandomState`, whose stream numpy froze.
      sha256: digest of images and labels as loaded, so that another release cannot change the task unseen.
    """

    name: str
    train_size: int
    split_seed: int
    sha256: str

    @property
    def channels(self) -> int:
        return 1


@dataclass(frozen=True)
class TfdsDataset:
    """A data set of TensorFlow Datasets, with the paper's splits.

    Attributes:
      name: as TFDS has it, with the config where there are several, such as "sun397/tfds".
      train, validation, test: its splits in TFDS's own notation, such as "train[:90%]".
      train_size, validation_size, test_size: how many images these hold.
      side: images are kept squeezed to squares of so many pixels, small enough for all to lie on a device; None keeps them as they were published,
        and each is read and decoded anew for each of its views.
      clean: (shorter side, central crop) of the clean test images, in pixels.
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

    @property
    def channels(self) -> int:
        return 3


class Files(Protocol):
    """Encoded images, to be read from several threads."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> bytes: ...


@dataclass(frozen=True)
class Split:
    """Images and labels of one split.

    Attributes:
      images: [N, H, W, C], float32 in [-1, 1] or uint8; or N encoded files.
      labels: [N], int32.
      sizes: [N, 2], float32, height and width that each image had before it was squeezed to [H, W]; None where none was squeezed.
      clean: [N, h, w, C] like `images`, the whole images as they are shown for evaluation; None where `images` are.
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
      UserError: where the installed data is not the data of the task.
    """
    import numpy as np

    from distill_bench.data import embedded

    images, labels = embedded.arrays(dataset.name)
    if (found := digest(images, labels)) != dataset.sha256:
        raise UserError(
            f"The {dataset.name} images on this machine are not those of the task: sha256 {found[:16]}, "
            f"expected {dataset.sha256[:16]}.\nInstall the tested versions: pip install -c constraints.txt scikit-learn pillow"
        )
    order = np.random.RandomState(dataset.split_seed).permutation(len(images))
    scaled = images.astype(np.float32) / (embedded.PEAK[dataset.name] / 2) - 1
    parts = order[: dataset.train_size], order[dataset.train_size :]
    train, test = (Split(scaled[i], labels[i]) for i in parts)
    return train, test

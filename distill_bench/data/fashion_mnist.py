"""Fashion-MNIST: 70,000 grey images of 28x28 pixels, of clothes of ten kinds.

Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747, MIT licence. Neither TensorFlow nor TFDS is needed:
the four published files are enough.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill_bench.data import idx, tfds_images
from distill_bench.data.dataset import FashionMnist, Split, digest
from distill_bench.data.download import DownloadFailed, discard, download
from distill_bench.errors import UserError
from distill_bench.files import locked_file
from distill_bench.log import LOG

NAME, SIDE = "fashion_mnist", 28
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

# sha256 of each file's content without compression: servers compress it differently.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
SPLITS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
"""The beginning of each split's file names, and its number of images."""


class Part(NamedTuple):
    """One split, in an order that depends on its content alone.

    Attributes:
      images: [N, 28, 28, 1], uint8.
      labels: [N], int32.
    """

    images: np.ndarray
    labels: np.ndarray


def load(data_dir: Path) -> dict[str, Part]:
    """Both splits, from the first place that has them.

    These places are: the published files in `data_dir` or in its folder fashion_mnist; what TFDS
    has prepared in `data_dir`; the files of Debian's package. If none has them, the files are
    downloaded to the folder fashion_mnist.

    Raises:
      UserError: if a file is not the published one; or if there are none and they cannot be
        downloaded.
    """
    return _load(data_dir, DEBIAN_FOLDER)


def splits(dataset: FashionMnist, data_dir: Path) -> tuple[Split, Split]:
    """The task's (train, test) splits, in bytes.

    Raises:
      UserError: as `load`, or if the images are not those of the task.
    """
    parts = load(data_dir)
    found = hashlib.sha256("".join(digest(*part) for part in parts.values()).encode()).hexdigest()
    if found != dataset.sha256:
        raise UserError(
            f"The images of Fashion-MNIST in {data_dir} are not those of the task: sha256 "
            f"{found[:16]}, expected {dataset.sha256[:16]}.\nMove TFDS's folder "
            f"{data_dir / NAME} away, and get the published files."
        )

    def split(part: Part, size: int) -> Split:
        order = np.random.RandomState(dataset.order_seed).permutation(len(part.labels))[:size]
        return Split(part.images[order], part.labels[order])

    return split(parts["train"], dataset.train_size), split(parts["test"], dataset.test_size)


def is_here(data_dir: Path) -> bool:
    """Whether nothing has to be downloaded."""
    found = _find(_folders(data_dir)) | _find([DEBIAN_FOLDER])
    return len(found) == len(FILES) or tfds_images.find(data_dir / NAME) is not None


@functools.lru_cache(maxsize=2)
def _load(data_dir: Path, debian_folder: Path) -> dict[str, Part]:
    found = _find(_folders(data_dir))
    if len(found) < len(FILES) and (folder := tfds_images.find(data_dir / NAME)):
        return {
            split: _ordered(*tfds_images.read(folder, NAME, split, size))
            for split, (_, size) in SPLITS.items()
        }
    found = _find([debian_folder]) | found
    if len(found) < len(FILES):
        found |= _fetch(data_dir, [name for name in FILES if name not in found])
    arrays = {name: _verified(name, path) for name, path in found.items()}
    return {
        split: _ordered(arrays[f"{begin}-images-idx3-ubyte"], arrays[f"{begin}-labels-idx1-ubyte"])
        for split, (begin, _) in SPLITS.items()
    }


def _folders(data_dir: Path) -> list[Path]:
    return [data_dir, data_dir / NAME]


def _find(folders: list[Path]) -> dict[str, Path]:
    """The path of each file that is there, compressed or not."""
    found = {}
    for name in FILES:
        candidates = (folder / f"{name}{end}" for folder in folders for end in ("", ".gz"))
        if path := next(filter(Path.is_file, candidates), None):
            found[name] = path
    return found


def _verified(name: str, path: Path) -> np.ndarray:
    """The array of a file that has the published content.

    Raises:
      UserError: otherwise; says which file it is, if it is another one of the four.
    """
    try:
        content = idx.content_of(path)
        found = hashlib.sha256(content).hexdigest()
        array = idx.parse(content)
    except (idx.Damaged, OSError) as error:
        raise _refusal(path, str(getattr(error, "strerror", error) or error)) from None
    if found == FILES[name]:
        return array
    other = next((other for other, digest in FILES.items() if digest == found), None)
    if other:
        raise _refusal(path, f"it holds the content of {other}")
    shape = "x".join(map(str, array.shape))
    raise _refusal(
        path,
        f"its content ({shape} bytes) has sha256 {found[:16]}, the published one "
        f"{FILES[name][:16]}",
    )


def _refusal(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is not the file of Fashion-MNIST that its name says: {reason}.\n"
        f"Remove it, or put the published file there: {URL}/{path.name.removesuffix('.gz')}.gz"
    )


def _ordered(images: np.ndarray, labels: np.ndarray) -> Part:
    """The split sorted by pixels, then by labels: TFDS keeps another order than the files."""
    rows = np.concatenate([images.reshape(len(images), -1), labels.astype(np.uint8)[:, None]], 1)
    order = np.argsort(np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")[:, 0], kind="stable")
    return Part(images.reshape(-1, SIDE, SIDE, 1)[order], labels.astype(np.int32)[order])


def _fetch(data_dir: Path, names: list[str]) -> Mapping[str, Path]:
    """Downloads files to the folder fashion_mnist; goes on where an earlier call stopped.

    Raises:
      UserError: if that fails; says in what other ways to get the files.
    """
    folder = data_dir / NAME
    fetched = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked_file(folder / ".lock"):
            for name in names:
                path, part = folder / f"{name}.gz", folder / f"{name}.gz.part"
                if not path.exists():  # another process may have fetched it meanwhile
                    LOG.info("Downloading %s/%s to %s", URL, path.name, folder)
                    download(f"{URL}/{path.name}", part)
                    part.rename(path)
                    discard(part)
                fetched[name] = path
    except DownloadFailed as error:
        raise _missing(data_dir, names, str(error)) from None
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}.") from None
    return fetched


def _missing(data_dir: Path, names: list[str], reason: str) -> UserError:
    looked = [*_folders(data_dir), DEBIAN_FOLDER]
    return UserError(
        f"Fashion-MNIST is not on this machine, and cannot be downloaded: {reason}.\n"
        f"  missing    {', '.join(f'{name}.gz' for name in names)}\n"
        f"  looked in  {', '.join(map(str, looked))}\n"
        "Get the files in one of three ways:\n"
        f"- Debian, Ubuntu: apt-get install {DEBIAN_PACKAGE}\n"
        f"- with a network: python -m distill_bench.data prepare --task=fashion\n"
        f"- by other means, from {URL}/NAME: put them into {data_dir / NAME}, or name their "
        "folder with --data_dir"
    )

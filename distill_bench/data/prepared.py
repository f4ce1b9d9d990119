"""Data sets of TFDS, decoded once into memory-mapped arrays, and read without network and without TensorFlow.

The folder `distill-bench/<name>-<side>-<digest>/` beside TFDS's own holds `images`, `labels` and `sizes` of each split, and `clean` of
validation and test, as `data.Split` has them, each in an .npy file. Where a data set is too large to be kept squeezed, `records` stands in for
`images`: it tells which of TFDS's records is which, and the files are read from there. `manifest.json` is written last: a folder without it is
not whole. Images that cannot be decoded are left out; `damaged.txt` names them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_bench.data import datasets, packing
from distill_bench.data import tfds_records as records
from distill_bench.data.dataset import Split, TfdsDataset
from distill_bench.errors import UserError
from distill_bench.files import replace_atomically
from distill_bench.log import LOG

# Raised whenever code changes what is packed; folders of another layout are left alone.
LAYOUT = 2
MANIFEST, DAMAGED = "manifest.json", "damaged.txt"
_SMALL = (
    "labels",
    "sizes",
    "records",
)  # a few bytes an image: their digests are compared whenever they are loaded


def folder(dataset: TfdsDataset, data_dir: Path) -> Path:
    """Where the data set's packed arrays lie, or would."""
    about = json.dumps([LAYOUT, dataclasses.asdict(dataset)], sort_keys=True)
    name = f"{dataset.name.replace('/', '-')}-{dataset.side or 'files'}-{hashlib.sha256(about.encode()).hexdigest()[:8]}"
    return data_dir / "distill-bench" / name


def is_packed(dataset: TfdsDataset, data_dir: Path) -> bool:
    return (folder(dataset, data_dir) / MANIFEST).is_file()


def prepare(
    dataset: TfdsDataset, data_dir: Path, say: Callable[[str], None], manual_dir: Path | None = None
) -> None:
    """Downloads the data set through TFDS where it is not there, and packs it; where it is packed, compares every byte with its digest.

    say: is told what happens, a line at a time.
    manual_dir: where archives lie that TFDS may not download; `data_dir/downloads/manual` where None.

    Raises:
      UserError: where TensorFlow is needed and missing, TFDS fails, its files are damaged or hold other counts, or the disk is too small.
    """
    place, source = folder(dataset, data_dir), records.find(dataset, data_dir)

    def make() -> Path:
        say(f"{dataset.name}: TFDS makes it in {data_dir}")
        return records.make(dataset, data_dir, manual_dir)

    if dataset.side is None:
        source = source or make()
    if is_packed(dataset, data_dir):
        try:
            _open(dataset, data_dir, source, every_byte=True)
            say(f"{place}: every byte is as it was packed.")
            return
        except UserError as error:
            say(str(error).partition("\n")[0])
            (place / MANIFEST).unlink()
    _pack(dataset, data_dir, source or make(), say)


def load(
    dataset: TfdsDataset,
    data_dir: Path,
    say: Callable[[str], None] = LOG.info,
    splits: Sequence[str] = ("train", "test"),
) -> tuple[Split, ...]:
    """The splits of these names, as memory maps; where nothing is there yet, `prepare`s them first, if it can.

    Shapes, types, lengths, and the digests of labels and sizes are compared with the manifest; those of the pixels only by `prepare`.

    Raises:
      UserError: where the data set is not prepared and cannot be, or its files are not as they were packed.
    """
    source = records.find(dataset, data_dir)
    if not is_packed(dataset, data_dir) or (dataset.side is None and source is None):
        source = source or _make(dataset, data_dir, say)
        _pack(dataset, data_dir, source, say)
    found = _open(dataset, data_dir, source)
    return tuple(_split(dataset, split, found[split], source) for split in splits)


def _make(dataset: TfdsDataset, data_dir: Path, say: Callable[[str], None]) -> Path:
    """What `prepare` would have TFDS do, where it can."""
    say(f"{dataset.name} is not in {data_dir}: TFDS makes it, once, from the network")
    try:
        return records.make(dataset, data_dir, None)
    except UserError as error:
        missing = f"a version in the format {records.FORMAT} in {data_dir / dataset.name}"
        neither = (
            "not"
            if is_packed(dataset, data_dir)
            else f"neither {folder(dataset, data_dir) / MANIFEST}\nnor"
        )
        raise UserError(
            f"{dataset.name} is not prepared: there is {neither} {missing}, and it cannot be made here.\n{error}\n"
            f"Prepare it where there is a network, once: {datasets.command(dataset, data_dir)}"
        ) from None


def _split(
    dataset: TfdsDataset, split: str, arrays: dict[str, np.ndarray], source: Path | None
) -> Split:
    if dataset.side is not None:
        return Split(**arrays)
    assert source is not None
    rest = {field: array for field, array in arrays.items() if field != "records"}
    examples = records.Records(source, getattr(dataset, split), _sizes(dataset)[split])
    return Split(images=_Kept(examples, np.asarray(arrays["records"])), **rest)


@dataclasses.dataclass(frozen=True)
class _Kept:
    """The encoded files of the images that are not damaged."""

    examples: records.Records
    records: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> bytes:
        return self.examples[int(self.records[index])].image


def _sizes(dataset: TfdsDataset) -> dict[str, int]:
    return {
        "train": dataset.train_size,
        "validation": dataset.validation_size,
        "test": dataset.test_size,
    }


def _path(place: Path, split: str, field: str) -> Path:
    return place / f"{split}_{field}.npy"


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Makes the folder and holds it for one process; others wait. The system lets go when the process ends, however it ends."""
    import fcntl

    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = open(place / ".lock", "a")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UserError(
            f"{place} cannot be written: {error.strerror}.\nImages are packed there: choose a --data_dir that can be written."
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pack(dataset: TfdsDataset, data_dir: Path, source: Path, say: Callable[[str], None]) -> None:
    """Packs TFDS's files in `source`, unless another process has by the time that the folder is free."""
    place = folder(dataset, data_dir)
    with _alone(place):
        if is_packed(dataset, data_dir):
            return
        _clear(place)
        examples = {
            split: records.Records(source, getattr(dataset, split), size)
            for split, size in _sizes(dataset).items()
        }
        _check_room(dataset, place)
        say(f"{place}: packing {dataset.name}, {sum(_sizes(dataset).values())} images")
        try:
            packed = {
                split: packing.pack(
                    dataset,
                    split,
                    examples[split],
                    lambda field, split=split: _path(place, split, field),
                    say,
                )
                for split in examples
            }
        except BaseException:
            _clear(place)
            raise
        damaged = [line for split in packed.values() for line in split.damaged]
        (place / DAMAGED).write_text("".join(["split\tindex\tfile\treason\n", *damaged]))
        if damaged:
            say(f"{len(damaged)} images are damaged and left out: see {place / DAMAGED}")
        manifest = {
            "layout": LAYOUT,
            "dataset": dataclasses.asdict(dataset),
            "version": examples["train"].version,
            "made_with": {
                name: importlib.metadata.version(name)
                for name in ("tensorflow-datasets", "pillow", "numpy")
            },
            "splits": {
                split: {"damaged": len(it.damaged), "arrays": it.arrays}
                for split, it in packed.items()
            },
        }
        replace_atomically(
            place / MANIFEST, lambda file: file.write(json.dumps(manifest, indent=1).encode())
        )
        say(f"{place}: packed")


def _clear(place: Path) -> None:
    """Removes what an earlier attempt left. Unlinked and not overwritten, arrays stay whole for those who have them mapped."""
    for left in [*place.glob("*.npy"), *place.glob(f".{MANIFEST}.*")]:
        left.unlink()


def _check_room(dataset: TfdsDataset, place: Path) -> None:
    rows = {
        split: sum(
            math.prod(shape) * dtype.itemsize
            for shape, dtype in packing.fields(dataset, split).values()
        )
        for split in _sizes(dataset)
    }
    needed, free = (
        sum(size * rows[split] for split, size in _sizes(dataset).items()),
        shutil.disk_usage(place).free,
    )
    if needed > free:
        raise UserError(
            f"Packing {dataset.name} takes {needed / 1e9:.1f} GB in {place}, where {free / 1e9:.1f} GB are free: make room there."
        )


def _open(
    dataset: TfdsDataset, data_dir: Path, source: Path | None, every_byte: bool = False
) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of each split by field, memory-mapped, refused with `UserError` unless they are what the manifest says.

    source: TFDS's own files, of whose version arrays have to be that refer to them.
    """
    place = folder(dataset, data_dir)
    version = source.name if source and dataset.side is None else None
    try:
        manifest = json.loads((place / MANIFEST).read_text())
        # Through JSON, as the manifest went: tuples are lists there.
        if (manifest["layout"], manifest["dataset"]) != (
            LAYOUT,
            json.loads(json.dumps(dataclasses.asdict(dataset))),
        ):
            raise ValueError(f"{MANIFEST} is of another data set")
        if version not in (None, manifest["version"]):
            raise ValueError(
                f"it refers to TFDS's version {manifest['version']}, and {version} is there"
            )
        return {
            split: _open_split(dataset, split, manifest["splits"][split], place, every_byte)
            for split in _sizes(dataset)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{place} is not as it was packed: {error if isinstance(error, ValueError) else repr(error)}.\n{datasets.repair(dataset, data_dir)}"
        ) from None


def _open_split(
    dataset: TfdsDataset, split: str, manifest: dict[str, Any], place: Path, every_byte: bool
) -> dict[str, np.ndarray]:
    found = {}
    for field, (shape, dtype) in packing.fields(dataset, split).items():
        path, about = _path(place, split, field), manifest["arrays"][field]
        found[field] = array = np.lib.format.open_memmap(path, mode="r")  # never unpickles
        expected = (_sizes(dataset)[split] - manifest["damaged"], *shape)
        if array.shape != expected or array.dtype != dtype or [*expected] != about["shape"]:
            raise ValueError(
                f"{path.name} holds {array.dtype}{[*array.shape]}, expected {dtype}{[*expected]}"
            )
        if path.stat().st_size != array.offset + array.nbytes:
            raise ValueError(
                f"{path.name} has {path.stat().st_size} bytes, expected {array.offset + array.nbytes}"
            )
        if (every_byte or field in _SMALL) and hashlib.sha256(array.data).hexdigest() != about[
            "sha256"
        ]:
            raise ValueError(f"{path.name} has changed: its sha256 is another")
    return found

"""Data sets of TFDS or of TFRecord files, decoded once into memory-mapped arrays.

Reading them needs neither a network nor TensorFlow.

The arrays of a data set are in `distill-bench/<name>-<side>-<digest>/`, next to the folder of the
published files, each in a .npy file: `images`, `labels` and `sizes` of each split, and `clean` of
validation and test. `dataset.Split` describes them. A data set that is not squeezed has `records`
instead of `images`: the index of each image in the published files, from which it is then read.
`manifest.json` is written last; without it, a folder is incomplete. Images that cannot be decoded
are left out and listed in `damaged.txt`.
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

from distill_bench.data import packing, tfds_records, tfrecords
from distill_bench.data.dataset import Split, TfdsDataset
from distill_bench.data.datasets import prepare_command, repair_advice
from distill_bench.data.records import Examples, Reader
from distill_bench.errors import UserError
from distill_bench.files import locked_file, replace_atomically
from distill_bench.log import LOG

# The version of the packed format: increase it whenever the code changes what is packed. Folders
# of other versions are left alone.
LAYOUT = 2
MANIFEST, DAMAGED = "manifest.json", "damaged.txt"
# A few bytes per image, so that their digests are verified at every load.
_SMALL = ("labels", "sizes", "records")


def reader(dataset: TfdsDataset) -> Reader:
    """The module that reads the published files of the data set."""
    return tfrecords if dataset.tfrecords else tfds_records


def folder(dataset: TfdsDataset, data_dir: Path) -> Path:
    """The folder of the packed data set, whether it exists or not."""
    content = json.dumps([LAYOUT, _packed_fields(dataset)], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    name = f"{dataset.name.replace('/', '-')}-{dataset.side or 'files'}-{digest}"
    return data_dir / "distill-bench" / name


def _packed_fields(dataset: TfdsDataset) -> dict[str, Any]:
    """The fields that determine what is packed."""
    fields = dataclasses.asdict(dataset)
    del fields["in_memory"]
    if dataset.tfrecords is None:  # as in the folders packed before there was this field
        del fields["tfrecords"]
    return fields


def is_packed(dataset: TfdsDataset, data_dir: Path) -> bool:
    return (folder(dataset, data_dir) / MANIFEST).is_file()


def prepare(
    dataset: TfdsDataset,
    data_dir: Path,
    report: Callable[[str], None],
    manual_dir: Path | None = None,
) -> None:
    """Packs the data set, after TFDS has downloaded it if necessary.

    If it is packed already, verifies every byte by its digest, and packs it again if one differs.

    report: called with each line of progress.
    manual_dir: folder of the archives that TFDS may not download; None for
      `data_dir/downloads/manual`.

    Raises:
      UserError: if TensorFlow is needed and not installed, if TFDS fails, if TFRecord files are
        missing, if files are damaged or hold other numbers of images, or if the disk is too small.
    """
    packed_dir, source = folder(dataset, data_dir), reader(dataset).find(dataset, data_dir)

    def make() -> Path:
        if not dataset.tfrecords:
            report(f"{dataset.name}: TFDS makes it in {data_dir}")
        return reader(dataset).make(dataset, data_dir, manual_dir)

    if dataset.side is None:
        source = source or make()
    if is_packed(dataset, data_dir):
        try:
            _open(dataset, data_dir, source, every_byte=True)
            report(f"{packed_dir}: every byte is as it was packed.")
            return
        except UserError as error:
            report(str(error).partition("\n")[0])
            (packed_dir / MANIFEST).unlink()
    _pack(dataset, data_dir, source or make(), report)


def load(
    dataset: TfdsDataset,
    data_dir: Path,
    report: Callable[[str], None] = LOG.info,
    splits: Sequence[str] = ("train", "test"),
) -> tuple[Split, ...]:
    """The splits with these names, memory-mapped. Prepares the data set first if necessary.

    Compares shapes, dtypes, lengths, and the digests of labels and sizes with the manifest. Only
    `prepare` verifies the pixels.

    Raises:
      UserError: if the data set is not prepared and cannot be, or if its files have changed since
        they were packed.
    """
    source = reader(dataset).find(dataset, data_dir)
    if not is_packed(dataset, data_dir) or (dataset.side is None and source is None):
        source = source or _make(dataset, data_dir, report)
        _pack(dataset, data_dir, source, report)
    arrays = _open(dataset, data_dir, source)
    return tuple(_split(dataset, split, arrays[split], source) for split in splits)


def _make(dataset: TfdsDataset, data_dir: Path, report: Callable[[str], None]) -> Path:
    """Lets TFDS make the data set, for a run that needs it now; returns TFDS's folder.

    Raises:
      UserError: if TFDS fails, or if the data set is TFRecord files that the user must copy.
    """
    if dataset.tfrecords:
        return tfrecords.make(dataset, data_dir, None)
    report(f"{dataset.name} is not in {data_dir}: TFDS makes it, once, from the network")
    try:
        return tfds_records.make(dataset, data_dir, None)
    except UserError as error:
        missing = f"no version in the format {tfds_records.FORMAT} in {data_dir / dataset.name}"
        if not is_packed(dataset, data_dir):
            missing = f"no {folder(dataset, data_dir) / MANIFEST}\nand {missing}"
        raise UserError(
            f"{dataset.name} is not prepared: there is {missing}, and it cannot be made here.\n"
            f"{error}\n"
            f"Prepare it once, with a network: {prepare_command(dataset, data_dir)}"
        ) from None


def _split(
    dataset: TfdsDataset, split: str, arrays: dict[str, np.ndarray], source: Path | None
) -> Split:
    if dataset.side is not None:
        return Split(**arrays)
    assert source is not None
    rest = {field: array for field, array in arrays.items() if field != "records"}
    examples = reader(dataset).Records(source, getattr(dataset, split), _sizes(dataset)[split])
    return Split(images=_Intact(examples, np.asarray(arrays["records"])), **rest)


@dataclasses.dataclass(frozen=True)
class _Intact:
    """The encoded files of the images that are not damaged.

    Attributes:
      examples: all published records.
      records: [N], the index of each intact image in `examples`.
    """

    examples: Examples
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


def _array_path(packed_dir: Path, split: str, field: str) -> Path:
    return packed_dir / f"{split}_{field}.npy"


@contextlib.contextmanager
def _locked(packed_dir: Path) -> Iterator[None]:
    """Makes the folder and holds it for this process alone; other processes wait."""
    with contextlib.ExitStack() as stack:
        try:
            packed_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked_file(packed_dir / ".lock"))
        except OSError as error:
            raise UserError(
                f"{packed_dir} cannot be written: {error.strerror}.\n"
                "Images are packed there: choose a --data_dir that can be written."
            ) from None
        yield


def _pack(
    dataset: TfdsDataset, data_dir: Path, source: Path, report: Callable[[str], None]
) -> None:
    """Packs the files in `source`, unless another process does it while this one waits."""
    packed_dir = folder(dataset, data_dir)
    with _locked(packed_dir):
        if is_packed(dataset, data_dir):
            return
        _clear(packed_dir)
        examples = {
            split: reader(dataset).Records(source, getattr(dataset, split), size)
            for split, size in _sizes(dataset).items()
        }
        version = reader(dataset).version(source)
        _check_room(dataset, packed_dir)
        report(f"{packed_dir}: packing {dataset.name}, {sum(_sizes(dataset).values())} images")
        packed = _pack_splits(dataset, packed_dir, examples, report)
        damaged = [line for split in packed.values() for line in split.damaged]
        (packed_dir / DAMAGED).write_text("".join(["split\tindex\tfile\treason\n", *damaged]))
        if damaged:
            report(f"{len(damaged)} images are damaged and left out: see {packed_dir / DAMAGED}")
        _write_manifest(dataset, packed_dir, version, packed)
        report(f"{packed_dir}: packed")


def _pack_splits(
    dataset: TfdsDataset,
    packed_dir: Path,
    examples: dict[str, Examples],
    report: Callable[[str], None],
) -> dict[str, packing.Packed]:
    """Writes the arrays of all splits; if that fails, leaves none behind."""
    try:
        return {
            split: packing.pack(
                dataset,
                split,
                examples[split],
                lambda field, split=split: _array_path(packed_dir, split, field),
                report,
            )
            for split in examples
        }
    except BaseException:
        _clear(packed_dir)
        raise


def _write_manifest(
    dataset: TfdsDataset, packed_dir: Path, version: str, packed: dict[str, packing.Packed]
) -> None:
    manifest = {
        "layout": LAYOUT,
        "dataset": _packed_fields(dataset),
        "version": version,
        "made_with": {
            name: importlib.metadata.version(name)
            for name in ("tensorflow-datasets", "pillow", "numpy")
        },
        "splits": {
            name: {"damaged": len(split.damaged), "arrays": split.arrays}
            for name, split in packed.items()
        },
    }
    content = json.dumps(manifest, indent=1).encode()
    replace_atomically(packed_dir / MANIFEST, lambda file: file.write(content))


def _clear(packed_dir: Path) -> None:
    """Removes what an earlier attempt left.

    Deletes arrays instead of overwriting them: a process that has one mapped keeps it intact.
    """
    for path in [*packed_dir.glob("*.npy"), *packed_dir.glob(f".{MANIFEST}.*")]:
        path.unlink()


def _check_room(dataset: TfdsDataset, packed_dir: Path) -> None:
    needed = sum(
        size * math.prod(shape) * dtype.itemsize
        for split, size in _sizes(dataset).items()
        for shape, dtype in packing.fields(dataset, split).values()
    )
    free = shutil.disk_usage(packed_dir).free
    if needed > free:
        raise UserError(
            f"Packing {dataset.name} takes {needed / 1e9:.1f} GB in {packed_dir}, "
            f"but only {free / 1e9:.1f} GB are free there: make room, or choose another --data_dir."
        )


def _open(
    dataset: TfdsDataset, data_dir: Path, source: Path | None, every_byte: bool = False
) -> dict[str, dict[str, np.ndarray]]:
    """The memory-mapped arrays of each split, by field, if they agree with the manifest.

    source: folder of the published files. Arrays that refer to them must be made from its version.
    every_byte: also verify the digests of the large arrays.

    Raises:
      UserError: if an array differs from what the manifest says.
    """
    packed_dir = folder(dataset, data_dir)
    version = reader(dataset).version(source) if source and dataset.side is None else None
    try:
        manifest = json.loads((packed_dir / MANIFEST).read_text())
        # Through JSON like the manifest, which turns tuples into lists.
        expected = LAYOUT, json.loads(json.dumps(_packed_fields(dataset)))
        if (manifest["layout"], manifest["dataset"]) != expected:
            raise ValueError(f"{MANIFEST} describes another data set")
        if version not in (None, manifest["version"]):
            raise ValueError(
                f"it refers to version {manifest['version']} of the files, but {version} was found"
            )
        return {
            split: _open_split(dataset, split, manifest["splits"][split], packed_dir, every_byte)
            for split in _sizes(dataset)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error if isinstance(error, ValueError) else repr(error)
        raise UserError(
            f"{packed_dir} has changed since it was packed: {reason}.\n"
            f"{repair_advice(dataset, data_dir)}"
        ) from None


def _open_split(
    dataset: TfdsDataset, split: str, manifest: dict[str, Any], packed_dir: Path, every_byte: bool
) -> dict[str, np.ndarray]:
    arrays = {}
    for field, (shape, dtype) in packing.fields(dataset, split).items():
        path, recorded = _array_path(packed_dir, split, field), manifest["arrays"][field]
        arrays[field] = array = np.lib.format.open_memmap(path, mode="r")  # never unpickles
        expected = (_sizes(dataset)[split] - manifest["damaged"], *shape)
        if array.shape != expected or array.dtype != dtype or [*expected] != recorded["shape"]:
            raise ValueError(
                f"{path.name} holds {array.dtype}{[*array.shape]}, expected {dtype}{[*expected]}"
            )
        size, expected_size = path.stat().st_size, array.offset + array.nbytes
        if size != expected_size:
            raise ValueError(f"{path.name} has {size} bytes, expected {expected_size}")
        verify = every_byte or field in _SMALL
        if verify and hashlib.sha256(array.data).hexdigest() != recorded["sha256"]:
            raise ValueError(f"{path.name} does not have the sha256 of the manifest")
    return arrays

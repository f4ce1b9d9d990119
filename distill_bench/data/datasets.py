"""The data sets of the paper, by the names that tasks have, and where they lie.

Splits and sizes are those of Beyer et al. 2021, arXiv:2106.05237; where TFDS keeps too few splits, the end of train is for validation.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path

from distill_bench import machine
from distill_bench.data.dataset import TfdsDataset
from distill_bench.errors import UserError, suggestion

_IMAGENET = TfdsDataset(
    "imagenet2012",
    "train[:98%]",
    "train[98%:]",
    "validation",
    1255544,
    25623,
    50000,
    side=None,
    clean=(256, 224),
)

# Those whose training images, squeezed, fit into a gigabyte lie on the device; the others are streamed as they were published.
CATALOGUE = {
    "flowers102": TfdsDataset(
        "oxford_flowers102",
        "train",
        "validation",
        "test",
        1020,
        1020,
        6149,
        side=256,
        clean=(160, 128),
    ),
    "pet37": TfdsDataset(
        "oxford_iiit_pet",
        "train[:90%]",
        "train[90%:]",
        "test",
        3312,
        368,
        3669,
        side=256,
        clean=(160, 128),
    ),
    "food101": TfdsDataset(
        "food101",
        "train[:90%]",
        "train[90%:]",
        "validation",
        68175,
        7575,
        25250,
        side=None,
        clean=(160, 128),
    ),
    "sun397": TfdsDataset(
        "sun397/tfds",
        "train",
        "validation",
        "test",
        76128,
        10875,
        21750,
        side=None,
        clean=(160, 128),
    ),
    "imagenet2012": _IMAGENET,
    "imagenet2012-160": dataclasses.replace(_IMAGENET, clean=(183, 160)),
    "imagenet2012-384": _IMAGENET,
    "imagenet2012-two": _IMAGENET,
}


def get(name: str) -> TfdsDataset:
    """The data set of the task called `name`.

    Raises:
      UserError: where there is none, with the nearest name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    raise UserError(
        f"There is no task {name!r} with a data set to prepare.{suggestion(name, CATALOGUE)}\nTasks: {', '.join(CATALOGUE)}"
    )


def data_dir(given: str | None) -> Path:
    """The folder of all data sets: the one given, else TFDS_DATA_DIR, else ~/tensorflow_datasets, as TFDS has it."""
    return Path(given or os.environ.get(machine.DATA) or "~/tensorflow_datasets").expanduser()


def command(dataset: TfdsDataset, data_dir: Path) -> str:
    """The command line that prepares the data set."""
    likely = sorted(
        CATALOGUE,
        key=lambda task: (CATALOGUE[task] != dataset, CATALOGUE[task].name != dataset.name),
    )
    task = likely[0]
    return f"python -m distill_bench.data prepare --task={task} --data_dir={shlex.quote(str(data_dir))}"


def repair(dataset: TfdsDataset, data_dir: Path) -> str:
    """What to do where the folder of the packed data set is not as it was packed: no command names that of a variation."""
    if dataset in CATALOGUE.values():
        return f"Pack it again: {command(dataset, data_dir)}"
    return "Remove that folder: the next run packs it again."

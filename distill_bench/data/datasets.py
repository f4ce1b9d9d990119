"""The data sets of the paper, by task name, and the folder that holds them.

Splits and sizes are those of Beyer et al. 2021, arXiv:2106.05237. If TFDS has too few splits, the
end of the train split is used for validation.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path

from distill_bench.data.dataset import TfdsDataset
from distill_bench.errors import UserError, suggestion
from distill_bench.machine import DATA_VARIABLE

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

# A data set of which the decoded training images fit on a device, at most 2 GB, is kept there; the
# others are streamed from the published files.
CATALOGUE = {
    "flowers102": TfdsDataset(
        "oxford_flowers102",
        "train",
        "validation",
        "test",
        1020,
        1020,
        6149,
        side=None,
        clean=(160, 128),
        in_memory=True,
    ),
    "pet37": TfdsDataset(
        "oxford_iiit_pet",
        "train[:90%]",
        "train[90%:]",
        "test",
        3312,
        368,
        3669,
        side=None,
        clean=(160, 128),
        in_memory=True,
    ),
    # The same images, as squares of 384 pixels: https://github.com/sayakpaul/FunMatch-Distillation
    "pet37-tfrecords": TfdsDataset(
        "pet37-tfrecords",
        "train",
        "validation",
        "test",
        3312,
        368,
        3669,
        side=None,
        clean=(160, 128),
        in_memory=True,
        tfrecords="gs://funmatch-tf",
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
      UserError: if no such task has a data set to prepare; suggests the nearest name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    raise UserError(
        f"There is no task {name!r} with a data set to prepare.{suggestion(name, CATALOGUE)}\n"
        f"Tasks: {', '.join(CATALOGUE)}"
    )


def data_dir(given: str | None) -> Path:
    """The data folder: `given`, else $TFDS_DATA_DIR, else TFDS's default."""
    folder = given or os.environ.get(DATA_VARIABLE) or "~/tensorflow_datasets"
    return Path(folder).expanduser()


def prepare_command(dataset: TfdsDataset, data_dir: Path) -> str:
    """The command line that prepares the data set."""
    task = min(  # the data set itself, else one of the same name: `dataset` may be a variation
        CATALOGUE,
        key=lambda task: (CATALOGUE[task] != dataset, CATALOGUE[task].name != dataset.name),
    )
    return (
        f"python -m distill_bench.data prepare --task={task} "
        f"--data_dir={shlex.quote(str(data_dir))}"
    )


def repair_advice(dataset: TfdsDataset, data_dir: Path) -> str:
    """What the user must do if the packed data set is damaged.

    A variation of a data set has no task name, so that no command can pack it again.
    """
    if dataset in CATALOGUE.values():
        return f"Pack it again: {prepare_command(dataset, data_dir)}"
    return "Remove that folder: the next run packs it again."

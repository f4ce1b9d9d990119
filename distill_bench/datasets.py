"""The data sets of the paper, by the names that tasks have, and where they lie.

Splits and sizes are those of Beyer et al. 2021, arXiv:2106.05237; where TFDS keeps too few splits, the end of train is for validation.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from distill_bench.data import TfdsDataset
from distill_bench.errors import UserError, suggestion

CATALOGUE = {
    "flowers102": TfdsDataset("oxford_flowers102", "train", "validation", "test", train_size=1020, test_size=6149, side=256, clean=(160, 128)),
    "pet37": TfdsDataset("oxford_iiit_pet", "train[:90%]", "train[90%:]", "test", train_size=3312, test_size=3669, side=256, clean=(160, 128)),
    "food101": TfdsDataset("food101", "train[:90%]", "train[90%:]", "validation", train_size=68175, test_size=25250, side=256, clean=(160, 128)),
    "sun397": TfdsDataset("sun397/tfds", "train", "validation", "test", train_size=76128, test_size=21750, side=256, clean=(160, 128)),
    "imagenet2012": TfdsDataset("imagenet2012", "train[:98%]", "train[98%:]", "validation", train_size=1255544, test_size=50000, side=288, clean=(256, 224)),
}


def get(name: str) -> TfdsDataset:
    """The data set of the task called `name`.

    Raises:
      UserError: where there is none, with the nearest name.
    """
    if name in CATALOGUE:
        return CATALOGUE[name]
    raise UserError(f"There is no task {name!r} with a data set to prepare.{suggestion(name, CATALOGUE)}\nTasks: {', '.join(CATALOGUE)}")


def data_dir(given: str | None) -> Path:
    """The folder of all data sets: the one given, else TFDS_DATA_DIR, else ~/tensorflow_datasets, as TFDS has it."""
    return Path(given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def command(dataset: TfdsDataset, data_dir: Path) -> str:
    """The command line that prepares the data set."""
    task = next((task for task, known in CATALOGUE.items() if known.name == dataset.name), dataset.name)
    return f"python -m distill_bench.data prepare --task={task} --data_dir={shlex.quote(str(data_dir))}"

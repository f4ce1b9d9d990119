"""This machine: how many cores to use, and the folders that hold data sets and weights.

The folders are environment variables, so that the processes that this one starts know them too.
"""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE, WEIGHTS_VARIABLE = "TFDS_DATA_DIR", "DISTILL_BENCH_CACHE"


def core_count() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_folders(data: str | None, weights: str | None) -> None:
    """Sets the folders of data sets and weights from now on; None leaves a folder unchanged."""
    for folder, variable in ((data, DATA_VARIABLE), (weights, WEIGHTS_VARIABLE)):
        if folder:
            os.environ[variable] = str(Path(folder).expanduser().absolute())


def chosen_folders() -> dict[str, str]:
    """The environment variables of the folders, as far as they are set."""
    return {
        name: os.environ[name] for name in (DATA_VARIABLE, WEIGHTS_VARIABLE) if name in os.environ
    }

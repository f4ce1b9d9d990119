"""This machine: how many cores to use, and the folders that hold data sets and weights.

The folders are environment variables, so that the processes that this one starts know them too.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

DATA_VARIABLE, WEIGHTS_VARIABLE = "TFDS_DATA_DIR", "DISTILL_BENCH_CACHE"

# Threads of an XLA client on CPU. The number changes the last digits of matrix products, so it is
# the same everywhere and part of a study's id.
THREADS = 1
THREADS_VARIABLES = ("NPROC", "PJRT_NPROC")  # from which XLA reads it when it makes a client
_ACCELERATORS = ("jax_plugins", "libtpu")  # modules that exist where jax can use one


def core_count() -> int:
    """The number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_mappings() -> int | None:
    """How many regions of memory Linux lets a process map; None where there is no such limit."""
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return None


def pin_threads() -> None:
    """Gives the CPU client that jax makes by itself THREADS threads. Call it before jax computes.

    Where jax can use an accelerator, the variables stay as they are: they would slow its host down.
    """
    if not any(find_spec(name) for name in _ACCELERATORS):
        os.environ.update(dict.fromkeys(THREADS_VARIABLES, str(THREADS)))


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

"""Which folders data sets and weights lie in: environment variables, which the processes that this one starts have, too."""

from __future__ import annotations

import os
from pathlib import Path

DATA, WEIGHTS = "TFDS_DATA_DIR", "DISTILL_BENCH_CACHE"


def choose(data: str | None, weights: str | None) -> None:
    """From now on these are the folders; None leaves one as it was."""
    for folder, variable in ((data, DATA), (weights, WEIGHTS)):
        if folder:
            os.environ[variable] = str(Path(folder).expanduser().absolute())


def chosen() -> dict[str, str]:
    """The variables that are set."""
    return {name: os.environ[name] for name in (DATA, WEIGHTS) if name in os.environ}

"""What training tells as it happens; plain data, so that it can cross a process or a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from distill_bench.training.lane_state import Saved

Status = Literal["ok", "diverged", "crashed"]


@dataclass(frozen=True)
class Losses:
    """Training losses of a lane's steps `first`, `first + 1`, ... (from 1), each measured before the step's update."""

    lane: int
    first: int
    values: np.ndarray


@dataclass(frozen=True)
class Point:
    """A lane's metrics (evaluate.METRICS) after `step` steps, and what its update rule's state tells, where that is asked for."""

    lane: int
    step: int
    metrics: dict[str, float]
    diagnostics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A lane's end. `step` is where it ended, for a divergence the first step whose loss was not finite."""

    lane: int
    status: Status
    step: int
    detail: str | None = None


@dataclass(frozen=True)
class Compiled:
    """All programs are ready: how many update rules were compiled for these lanes, and in how many seconds.

    static: for each lane, the numbers that its builder would not take as traced values.
    """

    rules: int
    seconds: float
    static: dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class Snapshot:
    """A lane's state, from which `train` continues to the same bits. All its events up to the step came before."""

    lane: int
    saved: Saved


@dataclass(frozen=True)
class Waiting:
    """The next thing waited for is this lane's; if nothing ever comes, its update rule is the first to suspect."""

    lane: int


Event = Losses | Point | Finished | Compiled | Snapshot | Waiting

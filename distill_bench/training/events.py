"""What `train` reports: plain data, which can cross a process boundary or a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from distill_bench.networks import bit
from distill_bench.training.lane_layout import LayoutOptions
from distill_bench.training.lane_state import Saved

Status = Literal["ok", "diverged", "crashed"]


@dataclass(frozen=True)
class Losses:
    """Training losses of a lane's steps `first`, `first + 1`, ..., counted from 1.

    Each is measured before the step's update.
    """

    lane: int
    first: int
    values: np.ndarray


@dataclass(frozen=True)
class Point:
    """A lane's metrics after `step` steps, those of one of exams.EXAMS.

    diagnostics: scalars that its update rule declares, and those that were asked for.
    """

    lane: int
    step: int
    metrics: dict[str, float]
    diagnostics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Student:
    """A lane's last measured parameters, on the host: those of its last `Point`.

    layout: lays out one row of devices, on which the same program measures them again.
    """

    lane: int
    params: bit.Params
    layout: LayoutOptions


@dataclass(frozen=True)
class Finished:
    """The end of a lane.

    step: the last step; after a divergence, the first step whose loss was not finite.
    """

    lane: int
    status: Status
    step: int
    detail: str | None = None


@dataclass(frozen=True)
class Compiling:
    """Update rules are being compiled.

    lanes: one lane for each update rule that is not ready yet; of: how many there were at first.
    """

    lanes: list[int]
    of: int


@dataclass(frozen=True)
class Compiled:
    """All programs are ready.

    rules: how many update rules were compiled for these lanes, which took `seconds`.
    static: for each lane, the numbers that its builder did not accept as traced values.
    """

    rules: int
    seconds: float
    static: dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class Snapshot:
    """A lane's state, from which `train` resumes bit for bit.

    All the lane's events up to this step came earlier.
    """

    lane: int
    saved: Saved


@dataclass(frozen=True)
class Refused:
    """A lane's saved state cannot be used, so that the lane starts from its beginning.

    reason: what the state does, such as "does not fit the update rule: ...".
    """

    lane: int
    reason: str


@dataclass(frozen=True)
class ChunkStarted:
    """From now on, results of the chunk that follows the first `step` steps are awaited.

    The devices may have begun the chunk earlier.
    """

    step: int


@dataclass(frozen=True)
class Waiting:
    """The next result awaited is this lane's: if none comes, suspect its update rule first."""

    lane: int


@dataclass(frozen=True)
class Alive:
    """Another process is still training this lane: a sign of life, which restarts stall timers."""

    lane: int


Event = (
    Losses
    | Point
    | Student
    | Finished
    | Compiling
    | Compiled
    | Snapshot
    | Refused
    | ChunkStarted
    | Waiting
    | Alive
)

"""What a sweep runs on, and where it reports its progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import jax

from distill_bench.tasks.task import Task
from distill_bench.training.engine import Engine, is_small, open_engine
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from sweeps.execution import multihost


class Display(Protocol):
    """Where a run tells how far it has come."""

    def begin(self, label: str, steps: int) -> None:
        """A phase of so many trial-steps starts."""
        ...

    def advance(self, steps: int) -> None: ...
    def say(self, text: str) -> None: ...

    def suspect(self, optimizers: Sequence[str]) -> None:
        """If this process dies or hangs now, it is one of these. Where there are none, it is not hanging, however long it takes."""
        ...


@dataclass(frozen=True)
class Resources:
    """On what a sweep runs.

    executor: "local"; "ray" for a Ray cluster at `ray_address` (None starts one here); "multihost" for all processes of `hosts`.
    cache: folder of compiled programs.
    checkpoint_seconds: between checkpoints of the trials under way; on Ray a trial starts again from its beginning.
    layout: how lanes lie on the devices.
    profile: write a trace of a few chunks into the folder of results; of process 0 where there are several, and not on Ray.
    diagnostics: keep, with every point of a curve, what the states of update rules tell (optimizers.diagnostics).
    """

    executor: Literal["local", "ray", "multihost"] = "local"
    ray_address: str | None = None
    hosts: multihost.Hosts = field(default_factory=multihost.Hosts)
    cache: str | None = None
    checkpoint_seconds: float = 30.0
    layout: LayoutOptions = LayoutOptions()
    profile: bool = False
    diagnostics: bool = False

    def diagnose(self) -> Callable[[Any], dict[str, jax.Array]] | None:
        """What is to be told of the states of update rules."""
        from optimizers import diagnostics

        return diagnostics if self.diagnostics else None

    def open_engine(self, task: Task) -> Engine:
        """The task on these devices."""
        return open_engine(task, make_layout(options=self.layout, small=is_small(task)))

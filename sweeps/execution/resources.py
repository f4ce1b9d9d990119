"""The machines and settings that a sweep runs with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import jax

from distill_bench import machine
from distill_bench.machine import core_count
from distill_bench.tasks.task import Task
from distill_bench.training.diagnose import Observe, norms
from distill_bench.training.engine import Engine, is_small, open_engine
from distill_bench.training.lane_layout import LayoutOptions, make_layouts
from sweeps.execution.multihost import Hosts

_MAPPINGS = 1_200
"""Of an update rule on one island: XLA's CPU client maps each compiled kernel three times (jax
0.10.2; 1,130 on average over 23 rules). Once a process may map no more, it dies of SIGSEGV."""


def _observe(state: Any, updates: Any, params: Any, gradients: Any) -> dict[str, jax.Array]:
    from optimizers import diagnostics

    return norms(state, updates, params, gradients) | diagnostics(state)


@dataclass(frozen=True)
class Resources:
    """The machines and settings that a sweep runs with.

    Attributes:
      executor: "local"; "ray" for a Ray cluster; "multihost" for all processes of `hosts`.
      ray_address: address of the Ray cluster; None starts one here.
      hosts: where the processes of "multihost" meet.
      cache: folder of compiled programs; None for no cache.
      checkpoint_seconds: seconds between checkpoints of running trials. On Ray there are no
        checkpoints: an interrupted trial starts again from its beginning.
      layout: how lanes are laid out on the devices.
      profile: write a trace of a few chunks into the output folder. With several hosts, only
        process 0 writes one. Not available on Ray.
      diagnostics: record norms of gradients and updates, and the diagnostics of Shampoo and SOAP,
        with every point of a curve.
    """

    executor: Literal["local", "ray", "multihost"] = "local"
    ray_address: str | None = None
    hosts: Hosts = field(default_factory=Hosts)
    cache: str | None = None
    checkpoint_seconds: float = 30.0
    layout: LayoutOptions = field(default_factory=LayoutOptions)
    profile: bool = False
    diagnostics: bool = False

    @property
    def cpu_devices(self) -> int:
        """The devices that jax itself makes of a CPU: those of a sweep over hosts, else one."""
        return (self.layout.devices or core_count()) if self.executor == "multihost" else 1

    def rules_at_once(self) -> int | None:
        """How many update rules a process can hold compiled; None for any number."""
        most = machine.most_mappings()
        if most is None or jax.default_backend() != "cpu":
            return None
        islands = (self.layout.devices or core_count()) // (self.layout.batch_shards or 1)
        if self.executor != "local":  # a process has one island then
            islands = 1
        # The other half is for the programs that all rules share.
        return max(1, most // 2 // (_MAPPINGS * max(1, islands)))

    def observe(self) -> Observe | None:
        """The function that computes diagnostics of every update rule, if wanted."""
        return _observe if self.diagnostics else None

    def open_engine(self, task: Task) -> Engine:
        """An engine that trains on the task with these devices."""
        return open_engine(task, *make_layouts(self.layout, small=is_small(task)))

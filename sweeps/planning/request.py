"""What the user asked for, as typed and before any check."""

from __future__ import annotations

from dataclasses import dataclass, field

from distill_bench.tasks.variation import Variation


@dataclass(frozen=True)
class PlanRequest:
    """The flags of run.py that shape a plan; `make_plan` checks them.

    Attributes:
      opts: optimizers, each in a form that `registry.resolve` accepts; ("all",) for every built-in.
      task: name of the task.
      horizons: steps of each rung, as text; ("ladder",) for every rung of the task, () for its
        first two.
      trials: tuning trials of each optimizer at each horizon.
      seeds: final runs of each winner.
      learning_rates: values of `lr` to try, as text.
      settings: texts of the form "name=value" or "name=value,value".
      shard: "i/n", slice i of n.
      schedule: a learning-rate schedule for all optimizers, one of rescheduling.CHOICES; None for
        their own.
      variation: changes to the task.
      part: the optimizers to plan for, of those in `opts`; () for all of them.
    """

    opts: tuple[str, ...]
    task: str
    horizons: tuple[str, ...]
    trials: int
    seeds: int
    learning_rates: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    shard: str = "0/1"
    schedule: str | None = None
    variation: Variation = field(default_factory=Variation)
    part: tuple[str, ...] = ()

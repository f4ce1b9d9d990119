"""Restarts the process that trains, without the optimizer that ended it.

One such worker trains all optimizers together, so that they share the teacher. If it dies or
stalls, the optimizer that it was waiting for is the suspect. The next worker resumes the others
from their checkpoints; a suspect runs by itself from then on, and in a worker of its own if it was
the only one. If it ends that worker too, its trials have crashed (or timed out), and the sweep goes
on without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from distill_bench.errors import SweepFailed, UserError
from sweeps.execution.progress import Display
from sweeps.execution.request import Faults, Request
from sweeps.execution.watch import Done, Failure, Limits, run_worker

_STRIKES = 2  # an optimizer is dead once it has ended a worker this often as the only suspect


@dataclass(frozen=True)
class Swept:
    """What came of a sweep.

    Attributes:
      folders: of the studies, in the order of the request.
      lost: names of optimizers that ended even the process that was to store how they ended.
    """

    folders: list[Path]
    lost: list[str]


def supervise(request: Request, limits: Limits, display: Display) -> Swept:
    """Runs the request to its end, whatever its optimizers do.

    Raises:
      UserError: if the request is wrong, or its optimizers cannot even be imported.
      SweepFailed: if the state of the machine prevents going on.
    """
    # A shard is a slice of the trials of all optimizers, so that each worker must know them all.
    sweep = _Sweep(request.faults, divisible=request.plan.shard == "0/1")
    while sweep.parts:
        plan = replace(request.plan, part=sweep.parts[0])
        outcome = run_worker(replace(request, plan=plan, faults=sweep.faults), limits, display)
        sweep.specs = sweep.specs or dict(outcome.specs)
        if isinstance(outcome, Done):
            sweep.folders |= zip(outcome.specs.values(), outcome.folders, strict=False)
            sweep.parts.pop(0)
        elif request.resources.executor == "multihost":
            raise SweepFailed(
                f"{outcome.headline}.\nThe processes of a --multihost sweep end together; the one "
                "that ended first says why (see worker.log in its --outdir).\n"
                "The same command on every host goes on from the last checkpoint."
            )
        else:
            display.say(sweep.go_on_after(outcome))
    folders = [sweep.folders[spec] for spec in sweep.specs.values() if spec in sweep.folders]
    return Swept(folders, sweep.lost)


@dataclass
class _Sweep:
    """What is left of a sweep.

    Attributes:
      faults: what ended earlier workers.
      divisible: whether its optimizers may be divided among workers.
      parts: the optimizers of each worker to come, as typed; () stands for all of them.
      strikes: how often an optimizer was the only suspect, by name.
      specs: all optimizers by name, as typed; empty before a worker has planned the sweep.
      folders: of the studies that are done, by their optimizer as typed.
      lost: see `Swept`.
    """

    faults: Faults
    divisible: bool
    parts: list[tuple[str, ...]] = field(default_factory=lambda: [()])
    strikes: Counter[str] = field(default_factory=Counter)
    specs: dict[str, str] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def go_on_after(self, failure: Failure) -> str:
        """Decides what the next worker runs; returns what to tell the user.

        Raises:
          UserError, SweepFailed: if there is nobody to go on without.
        """
        names = self._blamed(failure)
        if self.faults.dead.keys() & names:
            if not self.divisible:
                raise SweepFailed(failure.fault.detail)
            self.parts.pop(0)
            self.lost += names
            return f"{failure.headline}: {names[0]} is left out, and how it ended is not stored."
        if len(names) == 1 or self.faults.alone.issuperset(names):
            self.strikes.update(names)
        dead = [name for name in names if self.strikes[name] >= _STRIKES]
        self.faults = Faults(
            self.faults.alone.union(names),
            {**self.faults.dead, **dict.fromkeys(dead, failure.fault)},
        )
        if self.divisible:
            self._separate([self.specs[name] for name in names if self.strikes[name]])
        return _consequence(failure, names, dead)

    def _blamed(self, failure: Failure) -> Sequence[str]:
        """Names of the optimizers that may have ended the worker."""
        # Whatever ends a worker that imports one optimizer alone, it is to blame.
        own = [name for name, spec in self.specs.items() if (spec,) == self.parts[0]]
        if names := failure.suspects or own:
            return names
        if failure.importing:
            raise UserError(
                f"--opt={failure.importing} ended the process that imported it.\n"
                f"{failure.fault.detail}"
            )
        raise SweepFailed(
            f"{failure.fault.detail}\nIt was not running an optimizer. "
            "The same command continues from the last checkpoint."
        )

    def _separate(self, specs: Sequence[str]) -> None:
        """Gives each of these optimizers a worker of its own, after the others."""
        here = self.parts.pop(0) or tuple(self.specs.values())
        if rest := tuple(spec for spec in here if spec not in specs):
            self.parts.insert(0, rest)
        self.parts += [(spec,) for spec in specs]


def _consequence(failure: Failure, names: Sequence[str], dead: Sequence[str]) -> str:
    if dead:
        return (
            f"{', '.join(sorted(dead))}: {failure.headline}. Its trials have ended "
            f"({failure.fault.status}); the others go on."
        )
    return (
        f"{failure.headline} while running {', '.join(names)}. "
        "Resuming, with each of these by itself."
    )

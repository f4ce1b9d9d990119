"""Runs of an entry and their reruns: which numbers a machine repeated to the last digit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sweeps.board.run_records import SAME

Key = tuple[str, int, int, int | None]


@dataclass(frozen=True)
class Run:
    """One run of an entry, and its rerun.

    Attributes:
      kind: "final" or "tuning".
      horizon, seed: those of the run.
      trial: index among the tuning trials of its rung, in the entry's order; None for a final run.
      recorded: probe loss in the entry; None if the run failed (diverged, crashed or timed out).
      rerun: probe loss of the rerun; None if it failed.
      environment: index of the verdict's environment in which it was rerun.
      differs: columns whose recorded numbers the rerun does not have to the last digit, see
        `run_records.differences`; None if an earlier version compared probe losses alone.
      metrics: name of another metric at the end of a final run -> (recorded, rerun).
    """

    kind: Literal["final", "tuning"]
    horizon: int
    seed: int
    trial: int | None
    recorded: float | None
    rerun: float | None
    environment: int = 0
    differs: tuple[str, ...] | None = None
    metrics: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What names the run, wherever it was rerun."""
        return self.kind, self.horizon, self.seed, self.trial

    @property
    def identical(self) -> bool:
        """Whether the rerun has all recorded numbers to the last digit."""
        return (
            self.recorded is not None
            and self.rerun is not None
            and abs(self.rerun - self.recorded) <= SAME * self.recorded
            and not self.differs
        )

    @property
    def agrees(self) -> bool:
        """Whether it is identical, or failed as recorded."""
        return self.identical or (self.recorded is None and self.rerun is None)


def unsettled(runs: Iterable[Run]) -> list[Run]:
    """The reruns of runs that no machine repeated exactly.

    A rerun with the recorded numbers to the last digit proves them, whatever other machines gave.
    """
    runs = list(runs)
    proved = {run.key for run in runs if run.agrees}
    return [run for run in runs if run.key not in proved]


def exact(runs: Iterable[Run]) -> set[int]:
    """The environments that repeated some run to the last digit."""
    return {run.environment for run in runs if run.identical}


def altered(runs: Iterable[Run]) -> list[Run]:
    """Unsettled reruns on machines that repeat others to the last digit, and so must repeat all.

    Runs that were recorded as crashed are not among them: a machine may have failed.
    """
    runs = list(runs)
    must = exact(runs)
    return [
        run
        for run in unsettled(runs)
        if run.environment in must and (run.recorded is not None or "status" in (run.differs or ()))
    ]

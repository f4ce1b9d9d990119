"""Runs an experiment on digits, each in a folder of its own, where an interrupted one continues."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distill_bench.files import write_atomically
from distill_bench.tasks.variation import Variation
from sweeps.results.store import Loaded

TASK = "digits"


class Compare(Protocol):
    """`sweeps.compare`, as far as experiments need it."""

    def __call__(
        self,
        optimizers: Sequence[str],
        task: str,
        horizons: Sequence[int],
        *,
        trials: int,
        seeds: int,
        settings: Mapping[str, Any] | None,
        outdir: Path,
        variation: Variation,
        export: Path | None,
    ) -> Any: ...


@dataclass(frozen=True)
class Runs:
    """Runs experiments, each in a folder of its own, where an interrupted one continues.

    Attributes:
      compare: trains and compares, see `sweeps.compare`.
      outdir: folder for all experiments.
      weights: the weights folder, from which students can start.
      quick: the smallest experiments of the same form, whose figures mean nothing.
    """

    compare: Compare
    outdir: Path
    weights: Path
    quick: bool = False

    def __call__(
        self,
        claim: str,
        optimizers: Sequence[str],
        size: Size,
        variation: Variation,
        settings: Mapping[str, Any] | None = None,
        export: Path | None = None,
    ) -> list[Loaded]:
        """Optimizers on a variation of digits: one study for each, in the same order.

        export: folder for the students of the final runs.
        """
        size = size.least() if self.quick else size
        began, folder = time.monotonic(), self.outdir / claim
        folder.mkdir(parents=True, exist_ok=True)
        try:
            results = self.compare(
                list(optimizers),
                TASK,
                list(size.horizons),
                trials=size.trials,
                seeds=size.seeds,
                settings=settings,
                outdir=folder,
                variation=variation,
                export=export,
            )
        finally:
            spent = self.seconds(claim) + time.monotonic() - began
            write_atomically(folder / "seconds.txt", f"{spent:.0f}\n")
        return results.studies

    def seconds(self, claim: str) -> float:
        """The time that a claim's experiments have taken, over all calls."""
        try:
            return float((self.outdir / claim / "seconds.txt").read_text())
        except (OSError, ValueError):
            return 0.0


@dataclass(frozen=True)
class Size:
    """Attributes: horizons; tuning trials at the shortest; final seeds."""

    horizons: tuple[int, ...]
    trials: int
    seeds: int = 3

    def least(self) -> Size:
        return Size(tuple(60 * 2**i for i in range(len(self.horizons))), 3, 2)


def how(runs: Runs, claim: str, size: Size, what: str) -> str:
    """How an experiment is run, for its finding."""
    note = " A quick run, whose figures mean nothing." if runs.quick else ""
    return (
        f"`python sweeps/evidence.py --claim={claim}`: {what}; {size.trials} tuning trials at "
        f"{size.horizons[0]:,} steps, half as many at twice the steps, {size.seeds} seeds.{note}"
    )

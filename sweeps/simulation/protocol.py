"""The whole protocol, simulated: surfaces, searches on them, boards of their results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from distill_bench.log import LOG
from sweeps.board.protocol import BASELINE_FACTOR, BASELINE_OCTAVES, SEEDS
from sweeps.simulation import boards, surfaces
from sweeps.simulation.boards import Field
from sweeps.simulation.report import Outcome
from sweeps.simulation.surfaces import Kind, Surface, Trials
from sweeps.simulation.tuning import Bank, Noise, Procedure

ENTRANT_RUNGS = 6  # 125 to 4000
BASELINE_RUNGS = ENTRANT_RUNGS + BASELINE_OCTAVES
LINE_SECONDS = 10.0


@dataclass(frozen=True)
class Setting:
    """What to simulate.

    Attributes:
      trials: number of trials of an entrant at the shortest rung.
      proposals: see `Search.proposals`.
      boards: number of boards of each sort, on each kind of surface.
      replicates: number of searches of an entrant on each surface; the baseline, whose searches
        take four times as long, makes a quarter as many.
      draws: number of rough surfaces for each optimizer.
      seed: of everything random.
      most: number of trials to which length scales are fitted.
    """

    trials: int
    proposals: bool
    boards: int
    replicates: int
    draws: int
    seed: int
    most: int

    @property
    def entrant(self) -> Procedure:
        return Procedure(self.trials, ENTRANT_RUNGS, self.proposals)

    @property
    def baseline(self) -> Procedure:
        return Procedure(BASELINE_FACTOR * self.trials, BASELINE_RUNGS, self.proposals)


def simulate(
    sources: Sequence[Trials], baseline: Trials, setting: Setting, folder: Path | None = None
) -> dict[Kind, Outcome]:
    """What comes out on smooth and on rough surfaces.

    Args:
      sources: the trials of each optimizer whose surfaces entrants search, the baseline's too.
      baseline: those whose surfaces the baseline searches.
      setting: what to simulate.
      folder: see `Bank`.
    """
    return {kind: _outcome(kind, sources, baseline, setting, folder) for kind in get_args(Kind)}


def _outcome(
    kind: Kind,
    sources: Sequence[Trials],
    baseline: Trials,
    setting: Setting,
    folder: Path | None,
) -> Outcome:
    own: list[Surface] = []
    theirs: list[Surface] = []
    progress = _Progress(f"fitting {kind} surfaces", len(sources))
    for trials in sources:
        kernel = surfaces.fit(trials, kind, setting.most)
        draws = range(1 if kind == "smooth" else setting.draws)
        made = [surfaces.surface(trials, kind, kernel, draw) for draw in draws]
        own += made
        theirs += made if trials is baseline else []
        progress.advance()
    noise, fewer = Noise(), max(2, setting.replicates // BASELINE_FACTOR)
    jobs = [(one, setting.entrant, setting.replicates) for one in own]
    jobs += [(one, setting.baseline, fewer) for one in theirs]
    missing = sum(Bank(noise, setting.seed, folder).missing(*job) for job in jobs)
    progress = _Progress(f"searching {kind} surfaces", missing)
    bank = Bank(noise, setting.seed, folder, progress.advance)
    found = [bank.regrets(*job) for job in jobs]
    entrants, base = found[: len(own)], found[len(own) :]
    trials = (setting.entrant.trials, setting.baseline.trials)
    field = Field(base, entrants, setting.baseline.horizons, trials, noise, SEEDS)
    progress = _Progress(f"judging boards on {kind} surfaces", setting.boards)
    return Outcome(
        entrants, base, boards.play(field, setting.boards, setting.seed, progress.advance)
    )


class _Progress:
    """Says how far a phase is, at most once in LINE_SECONDS."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._last = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._last = time.monotonic()
            LOG.info("%s: %d of %d", self._label, self._done, self._total)

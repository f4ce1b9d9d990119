"""The figures of a simulation: what is printed, as a table or as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeps.simulation.boards import SPEEDUPS, Score, Tally, errors, holds
from sweeps.simulation.surfaces import Kind
from sweeps.simulation.tuning import luck

RUNGS = 5  # 125 to 2000 steps: those that regrets and steps are given for


@dataclass(frozen=True)
class Outcome:
    """What was simulated on one kind of surface.

    Attributes:
      entrants: regrets [searches, rungs] of entrants, for each of their surfaces.
      baseline: regrets [searches, rungs] of the baseline, for each of its surfaces.
      tally: what came out of boards.
    """

    entrants: Sequence[np.ndarray]
    baseline: Sequence[np.ndarray]
    tally: Tally


def plain(outcomes: Mapping[Kind, Outcome], setting: Mapping[str, Any]) -> dict[str, Any]:
    """All figures, with plain numbers; those without another word are on smooth surfaces.

    setting: what was simulated; becomes part of the result.
    """
    kinds = {kind: _figures(outcome) for kind, outcome in outcomes.items()}
    smooth, rough = kinds["smooth"], kinds["rough"]
    return {
        "coverage": smooth["coverage"],
        "coverage_rough": rough["coverage"],
        "false_separation_12": smooth["false_separation_12"],
        "false_separation_12_rough": rough["false_separation_12"],
        "false_winner_2": smooth["false_winner_2"],
        "false_winner_2_rough": rough["false_winner_2"],
        "regret_percent": smooth["regret_percent"],
        "regret_percent_rough": rough["regret_percent"],
        **setting,
        "by_surface": kinds,
    }


def _figures(outcome: Outcome) -> dict[str, Any]:
    tally = outcome.tally
    own = luck([group[:, :RUNGS] for group in outcome.entrants])
    base = luck([group[:, :RUNGS] for group in outcome.baseline])
    uneven = tally.uneven[0].gain if tally.uneven else 0.0
    return {
        "surfaces": len(outcome.entrants),
        "regret_percent": 100 * own.mean,
        "regret_percent_by_rung": [100 * value for value in own.by_rung],
        "regret_percent_baseline": 100 * base.mean,
        "rung_luck_percent": 100 * own.tau,
        "rung_luck_percent_baseline": 100 * base.tau,
        "rung_luck_correlation": own.rho,
        "mean_luck_percent": 100 * own.overall,
        "coverage": _each(lambda gain: holds(tally.scores, gain)),
        "coverage_of_repetition": _each(lambda gain: holds(tally.scores, gain, of_repetition=True)),
        "coverage_by_rung": _each(lambda gain: tally.rungs[gain]),
        "coverage_beside_uneven": _each(lambda gain: holds(tally.beside, gain)),
        "coverage_of_uneven": _mean(holds(tally.uneven, uneven)),
        "bias_percent": _each(lambda gain: errors(tally.scores, gain), 100),
        "half_width_percent": _half_width(tally.scores),
        "half_width_percent_beside_uneven": _half_width(tally.beside),
        "half_width_percent_of_uneven": _half_width(tally.uneven),
        "without_interval": _mean([one.interval is None for one in tally.scores]),
        "false_separation_12": _mean(tally.separated),
        "false_separation_12_beside_baseline": _mean(tally.separated_beside),
        "false_winner_2": _mean(tally.winners),
        "false_winner_2_beside_baseline": _mean(tally.winners_beside),
    }


def _each(of: Callable[[float], Sequence[float]], scale: float = 1.0) -> dict[str, float | None]:
    """True speed-up -> mean of its values."""
    return {str(gain): _mean(of(gain), scale) for gain in SPEEDUPS}


def _half_width(scores: Sequence[Score]) -> float | None:
    return _mean([one.width for one in scores if one.interval], 50)


def _mean(values: Sequence[float], scale: float = 1.0) -> float | None:
    return scale * float(np.mean(values)) if len(values) else None


ROWS = (
    ("regret of an entrant, % of the loss", "regret_percent"),
    ("regret of the baseline, %", "regret_percent_baseline"),
    ("standard deviation of a rung's regret, %", "rung_luck_percent"),
    ("  of the baseline, %", "rung_luck_percent_baseline"),
    ("correlation of two rungs' regrets", "rung_luck_correlation"),
    ("standard deviation of the rungs' mean, %", "mean_luck_percent"),
    ("coverage of the true speed-up", "coverage"),
    ("coverage of a repetition", "coverage_of_repetition"),
    ("coverage of one rung's interval", "coverage_by_rung"),
    ("coverage beside uneven entrants", "coverage_beside_uneven"),
    ("  of the uneven ones", "coverage_of_uneven"),
    ("bias of the speed-up, %", "bias_percent"),
    ("half of the interval's width, %", "half_width_percent"),
    ("  beside uneven entrants", "half_width_percent_beside_uneven"),
    ("  of the uneven ones", "half_width_percent_of_uneven"),
    ("entrants without an interval", "without_interval"),
    ("twelve equal entrants: any separated", "false_separation_12"),
    ("  if the baseline is ranked too", "false_separation_12_beside_baseline"),
    ("two equal entrants: one ranked above the other", "false_winner_2"),
    ("  if the baseline is ranked too", "false_winner_2_beside_baseline"),
)


def table(figures: Mapping[str, Any]) -> str:
    """The figures of `plain` as text, one line each and a column for each kind of surface."""
    kinds = figures["by_surface"]
    lines = [f"{'':<50}" + "".join(f"{kind:>12}" for kind in kinds)]
    for label, name in ROWS:
        values = [kind[name] for kind in kinds.values()]
        gains = list(values[0]) if isinstance(values[0], dict) else [None]
        for gain in gains:
            text = f"{label}, {gain}x" if gain else label
            cells = [value[gain] if gain else value for value in values]
            lines.append(f"{text:<50}" + "".join(f"{_cell(cell):>12}" for cell in cells))
    lines.append(f"{'steps of a search, rungs 125 to 2000':<50}{figures['trial_steps']:>12,}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

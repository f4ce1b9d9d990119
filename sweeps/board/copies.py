"""Finds entries that have another entry's code under another name, or another entry's losses."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from optimizers.contract import registry
from optimizers.contract.likeness import likeness
from sweeps.board.entries import Entry
from sweeps.planning.study import TUNING_SEED

_EQUAL_LOSSES = 3  # of nine digits each; by chance two entries share none
_SPREAD = 1e-3
"""Largest spread over seeds, in logs, at which one entry's losses are the other's times a factor.
Different rules on the same seeds spread by 2 % (docs/leaderboard.md)."""

_Losses = dict[tuple[int, int], float]  # (horizon, seed) -> final probe loss


def found(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Optimizer -> what it has in common with others that it should not, one phrase each.

    Of a built-in optimizer and a copy, only the copy is told; of two others, both are.

    Args:
      entries: all entries of one task.
    """
    told: dict[str, list[str]] = defaultdict(list)
    codes = {entry.study.optimizer: _code(entry) for entry in entries}
    for pair in combinations(entries, 2):
        names = [entry.study.optimizer for entry in pair]
        phrases = []
        if codes[names[0]] and codes[names[0]] == codes[names[1]]:
            phrases.append("has the code of {other}, under another name or in another layout.")
        phrases += _common_losses(*pair)
        accused = [name for name in names if name not in registry.builtins()] or names
        for name in accused:
            other = names[1 - names.index(name)]
            told[name] += [phrase.replace("{other}", other) for phrase in phrases]
    return dict(told)


def _code(entry: Entry) -> str | None:
    try:
        return likeness(entry.sources, entry.study.optimizer)
    except (SyntaxError, ValueError):
        return None


def _common_losses(one: Entry, other: Entry) -> Iterator[str]:
    equal = len(_losses(one) & _losses(other))
    if equal >= _EQUAL_LOSSES:
        yield f"has {equal} losses in common with {{other}}, to the last digit."
    elif _times(_finals(one), _finals(other)):
        yield "has the losses of {other} times a factor, at every seed and horizon."


def _losses(entry: Entry) -> set[tuple[int, bool, float]]:
    """(horizon, whether a tuning trial, final probe loss) of all runs that ended well."""
    return {
        (r.trial.horizon, r.trial.seed == TUNING_SEED, r.final["probe_loss"])
        for r in entry.results
        if r.final
    }


def _finals(entry: Entry) -> _Losses:
    return {
        (r.trial.horizon, r.trial.seed): r.final["probe_loss"]
        for r in entry.results
        if r.final and r.trial.seed != TUNING_SEED
    }


def _times(one: _Losses, other: _Losses) -> bool:
    """Whether the losses have the same ratio at all seeds of each horizon that both ran."""
    ratios: dict[int, list[float]] = defaultdict(list)
    for horizon, seed in one.keys() & other.keys():
        ratios[horizon].append(math.log(one[horizon, seed] / other[horizon, seed]))
    enough = [found for found in ratios.values() if len(found) > 2]
    return len(enough) > 1 and all(np.ptp(found) < _SPREAD for found in enough)

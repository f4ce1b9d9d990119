"""Whether the order on a leaderboard agrees with results that others published at scale.

Nothing here is tuned to those results: they are compared with, and never selected on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from sweeps.board.folder import EXTERNAL
from sweeps.results import orders
from sweeps.results.orders import Agreement, Order

FEWEST = 4  # optimizers in common, for a tau


@dataclass(frozen=True)
class Published:
    """Results of one publication, from a file in docs/external.

    Attributes:
      name: what was trained, as the start of a sentence.
      cite: who published it, and where.
      source: the exact source of the figures, and when it was read.
      unit: what a figure is, in a few words.
      measure: what the figures are, in full.
      lower_is_better: whether a lower figure is better.
      results: name of a setting, such as a model's size -> optimizer, by its name here -> figure.
        Other names are kept and compare with nothing.
    """

    name: str
    cite: str
    source: str
    unit: str
    measure: str
    lower_is_better: bool
    results: Mapping[str, Mapping[str, float]]

    def orders(self) -> dict[str, Order]:
        """Setting -> its optimizers, by the logarithm of their figures; higher is better."""
        sign = -1 if self.lower_is_better else 1
        return {
            setting: Order({name: sign * math.log(x) for name, x in figures.items()})
            for setting, figures in self.results.items()
        }


def load(folder: Path = EXTERNAL) -> list[Published]:
    """All published results, by file name.

    Raises:
      TypeError: if a file lacks a field or has an unknown one.
    """
    return [Published(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def compare(task: str, order: Order, published: Sequence[Published]) -> list[dict[str, Any]]:
    """How the order on a task's leaderboard agrees with each publication, as JSON data.

    Publications that share fewer than two optimizers with the leaderboard are left out.
    """
    found = []
    for one in published:
        by_setting = {
            setting: agreement
            for setting, theirs in one.orders().items()
            if len((agreement := orders.compare(order, theirs)).optimizers) > 1
        }
        if by_setting:
            found.append(
                {
                    "task": task,
                    "name": one.name,
                    "cite": one.cite,
                    "source": one.source,
                    "measure": one.measure,
                    "settings": [_setting(name, a) for name, a in by_setting.items()],
                    **_summary(task, order, one, by_setting),
                }
            )
    return found


def _setting(name: str, found: Agreement) -> dict[str, Any]:
    return {
        "setting": name,
        "optimizers": list(found.optimizers),
        "tau": found.tau,
        "separated": found.separated,
        "kept": found.kept,
    }


def repeatability(one: Published) -> float | None:
    """The mean tau between two settings of one publication, over pairs with FEWEST in common."""
    taus = [
        tau
        for first, second in combinations(one.orders().values(), 2)
        if len({*first.scores} & {*second.scores}) >= FEWEST
        and (tau := orders.tau(first, second)) is not None
    ]
    return fmean(taus) if taus else None


def _summary(
    task: str, order: Order, one: Published, found: Mapping[str, Agreement]
) -> dict[str, Any]:
    """The agreement over all settings: figures, the same in sentences, and what contradicts it."""
    taus = [a.tau for a in found.values() if len(a.optimizers) >= FEWEST and a.tau is not None]
    names = {name for a in found.values() for name in a.optimizers}
    pairs = {pair: _differences(pair, one) for pair in sorted(order.separated) if {*pair} <= names}
    pairs = {pair: gaps for pair, gaps in pairs.items() if gaps}
    figures = {
        "optimizers": len(names),
        "taus": taus,
        "repeatability": repeatability(one) if len(taus) > 1 else None,
        "separated": len(pairs),
        "kept": sum(fmean(gaps) > 0 for gaps in pairs.values()),
    }
    against = sorted((fmean(gaps), *pair, gaps) for pair, gaps in pairs.items() if fmean(gaps) <= 0)
    return figures | {
        "sentences": list(_sentences(task, one, figures)),
        "contradictions": [
            f"{better}'s speed-up on {task} is {math.exp(_ahead(order, better, worse)):.3f} times "
            f"{worse}'s; {one.cite}: {worse} has the better {one.unit} in "
            f"{sum(gap < 0 for gap in gaps)} of {len(gaps)} settings, by {-math.expm1(gap):.1%} on "
            "average."
            for gap, better, worse, gaps in against
        ],
    }


def _ahead(order: Order, better: str, worse: str) -> float:
    return order.scores[better] - order.scores[worse]


def _sentences(task: str, one: Published, figures: Mapping[str, Any]) -> Iterator[str]:
    yield f"{one.name} ({one.cite}): {figures['optimizers']} of the optimizers on {task}."
    if taus := figures["taus"]:
        text = f"Kendall's tau of the two orders is {fmean(taus):.2f}"
        if len(taus) > 1:
            text += f" on average over {len(taus)} settings ({min(taus):.2f} to {max(taus):.2f})"
        if (own := figures["repeatability"]) is not None:
            text += f"; two settings of theirs agree with {own:.2f}"
        yield text + "."
    if not figures["separated"]:
        yield f"No two of them differ significantly on {task}."
    else:
        yield (
            f"Pairs of them that differ significantly on {task}: {figures['separated']}; in the "
            f"same order there, on average over its settings: {figures['kept']}."
        )


def _differences(pair: tuple[str, str], one: Published) -> list[float]:
    """The pair's difference of scores in each setting that has both."""
    better, worse = pair
    return [
        theirs.scores[better] - theirs.scores[worse]
        for theirs in one.orders().values()
        if {better, worse} <= {*theirs.scores}
    ]

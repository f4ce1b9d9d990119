"""Tasks side by side: each optimizer's place on every task, and whether the orders agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from sweeps.board.rung import describe_gain
from sweeps.results import orders
from sweeps.results.comparison import Comparison
from sweeps.results.orders import Agreement


def side_by_side(comparisons: Mapping[str, Comparison]) -> dict[str, Any] | None:
    """Optimizers that are on more than one task's leaderboard, as JSON data; None if none is.

    The best on average come first, by the logarithm of their speed-ups on their tasks.

    comparisons: task -> its entries' rows, compared.
    """
    of_task = {task: one.order().scores for task, one in comparisons.items()}
    tasks: dict[str, list[str]] = {}
    for task, scores in of_task.items():
        for name in scores:
            tasks.setdefault(name, []).append(task)
    several = {name: own for name, own in tasks.items() if len(own) > 1}
    if not several:
        return None

    def average(name: str) -> float:
        return sum(of_task[task][name] for task in several[name]) / len(several[name])

    shown = [task for task in comparisons if any(task in own for own in several.values())]
    return {
        "tasks": shown,
        "rows": [
            {
                "optimizer": name,
                "places": [
                    {
                        "rank": comparisons[task].ranks()[name],
                        "speedup": describe_gain(comparisons[task].overall(name)),
                    }
                    if task in several[name]
                    else None
                    for task in shown
                ],
            }
            for name in sorted(several, key=lambda name: (-average(name), name))
        ],
        **_agreements(comparisons, shown),
    }


def _agreements(comparisons: Mapping[str, Comparison], tasks: list[str]) -> dict[str, list[str]]:
    """How far the orders of every two tasks agree, and the pairs that stand otherwise."""
    sentences, against = [], []
    for first, second in combinations(tasks, 2):
        found = orders.compare(comparisons[first].order(), comparisons[second].order())
        sentences += describe(found, f"on {first}", f"on {second}")
        against += contradictions(found, f"on {first}", f"on {second}")
    return {"sentences": sentences, "contradictions": against}


def describe(found: Agreement, first: str, second: str) -> list[str]:
    """An agreement of orders in plain sentences.

    first, second: the places, such as "on digits" and "on fashion".
    """
    n = len(found.optimizers)
    if found.tau is None or found.chance is None:
        return [f"{n} of the optimizers {first} are also {second}: too few for an order."]
    details = [f"{found.interval[0]:.2f} to {found.interval[1]:.2f}"] if found.interval else []
    if found.ceiling is not None:
        details.append(f"two repetitions would agree with about {found.ceiling:.2f}")
    details.append(
        f"orders without any connection agree so well with probability {found.chance:.2g}"
    )
    sentences = [
        f"Order {first} and {second}: Kendall's tau {found.tau:.2f} over {n} optimizers "
        f"({'; '.join(details)})."
    ]
    if found.separated:
        sentences.append(
            f"Pairs that differ significantly {first}: {found.separated}; in the same order "
            f"{second}: {found.kept}."
        )
    return sentences


def contradictions(found: Agreement, first: str, second: str, by: str = "speed-up") -> list[str]:
    """The pairs that differ significantly in the first place and stand otherwise in the second.

    Args:
      first, second: the places, such as "on digits" and "on fashion".
      by: whose logarithms the scores are; for "loss", minus the logarithms.
    """
    sign = -1 if by == "loss" else 1
    return [
        f"{one.better}'s {by} is {math.exp(sign * one.first):.3f} times {one.worse}'s {first}, and "
        f"{math.exp(sign * one.second):.3f} times {second}."
        for one in found.contradictions
    ]

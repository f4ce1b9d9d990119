"""The neighbours of a hyperparameter's value: one step down and one step up its domain; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from optimizers.contract.domains import Choice, Domain, Log, Value

STEP = 1 / 8  # of the domain's range: a factor of 1.53 for a range of 30
_SHORTEST = STEP / 4  # a shorter step, at an end of the range, would show noise alone


@dataclass(frozen=True)
class Neighbour:
    """A value beside another one.

    Attributes:
      side: "down" or "up" the domain's own scale; for a Choice, the order of its values.
      value: the neighbour's value.
      offset: how far away it is, as a fraction of the range: below 0 for "down".
    """

    side: Literal["down", "up"]
    value: Value
    offset: float


def fraction(domain: Domain, value: Any) -> float:
    """Where the value lies in the domain's range: the inverse of `domain.at`."""
    if hasattr(domain, "fraction"):
        return getattr(domain, "fraction")(value)  # noqa: B009
    if isinstance(domain, Choice):
        return (domain.values.index(value) + 0.5) / len(domain.values)
    scale = math.log if isinstance(domain, Log) else float
    low, high = scale(domain.low), scale(domain.high)
    return (scale(value) - low) / (high - low)


def neighbours(domain: Domain, value: Any) -> list[Neighbour]:
    """The neighbours of `value`, the lower one first.

    A step is STEP of the range and ends at the range's end, where it is left out if it would be
    very short. The neighbours in a Choice are the values before and after. At most two.

    Args:
      domain: the range of the hyperparameter.
      value: a value in it.
    """
    u = min(max(fraction(domain, value), 0.0), 1.0)
    step = 1 / len(domain.values) if isinstance(domain, Choice) else STEP
    found = []
    for sign in (-1, 1):
        there = u + sign * step
        if not isinstance(domain, Choice):
            there = min(max(there, 0.0), 1.0)
        if 0 <= there <= 1 and abs(there - u) >= min(_SHORTEST, step):
            found.append(Neighbour("down" if sign < 0 else "up", domain.at(there), there - u))
    return found

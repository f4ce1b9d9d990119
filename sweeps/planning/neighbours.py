"""The neighbours of a hyperparameter's value: one step down and one step up its domain; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from optimizers.contract.domains import Choice, Domain, Value

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


def neighbours(domain: Domain, value: Any) -> list[Neighbour]:
    """The neighbours of `value`, the lower one first.

    A step is STEP of the range and ends at the range's end, where it is left out if it would be
    very short. The neighbours in a Choice are the values before and after. At most two.

    Args:
      domain: the range of the hyperparameter.
      value: a value in it.
    """
    u = min(max(domain.fraction(value), 0.0), 1.0)
    step = 1 / len(domain.values) if isinstance(domain, Choice) else STEP
    found = []
    for sign in (-1, 1):
        there = u + sign * step
        if not isinstance(domain, Choice):
            there = min(max(there, 0.0), 1.0)
        if 0 <= there <= 1 and abs(there - u) >= min(_SHORTEST, step):
            found.append(Neighbour("down" if sign < 0 else "up", domain.at(there), there - u))
    return found

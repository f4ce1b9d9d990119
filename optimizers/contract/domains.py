"""Where a hyperparameter is searched."""

from __future__ import annotations

import math
from dataclasses import dataclass

Value = float | int | str | bool


@dataclass(frozen=True)
class Log:
    """Values spread evenly in their logarithm between `low` and `high`, both positive."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"Log({self.low}, {self.high}) is no range: it wants 0 < low < high.")

    def at(self, u: float) -> float:
        """The value at fraction `u` in [0, 1] of the range."""
        return math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))


@dataclass(frozen=True)
class Uniform:
    """Values spread evenly between `low` and `high`."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Uniform({self.low}, {self.high}) is no range: it wants low < high.")

    def at(self, u: float) -> float:
        """The value at fraction `u` in [0, 1] of the range."""
        return self.low + u * (self.high - self.low)


@dataclass(frozen=True, init=False)
class Choice:
    """One of the given values."""

    values: tuple[Value, ...]

    def __init__(self, *values: Value):
        if not values:
            raise ValueError("Choice() has nothing to choose from: give it at least one value.")
        object.__setattr__(self, "values", values)

    def at(self, u: float) -> Value:
        """The value in whose equal share of [0, 1) `u` lies."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]


Domain = Log | Uniform | Choice

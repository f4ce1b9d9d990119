"""Search domains of hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import UnionType

Value = float | int | str | bool
LARGEST = 3.4e38  # of float32, as which a hyperparameter enters the compiled program


def _check_plain(domain: str, values: Sequence[object], kinds: type | UnionType) -> None:
    """Raises TypeError or ValueError if a value is of another kind, or too large for float32.

    What passes can be written as JSON and read back as it was.
    """
    for value in values:
        if not isinstance(value, kinds):
            raise TypeError(
                f"{domain} cannot hold {value!r}, a {type(value).__name__}: use plain Python "
                "numbers, and in Choice also text, True and False. Give other things a name, as "
                "in Choice('sine', 'cosine')."
            )
        if isinstance(value, float | int) and not abs(value) <= LARGEST:
            raise ValueError(f"{domain} cannot hold {value!r}: use numbers of at most {LARGEST}.")


@dataclass(frozen=True)
class Log:
    """Values between `low` and `high`, spread evenly on a logarithmic scale; 0 < low < high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_plain("Log", (self.low, self.high), float | int)
        if not 0 < self.low < self.high:
            raise ValueError(f"Log({self.low}, {self.high}) is not a range: use 0 < low < high.")

    def at(self, u: float) -> float:
        """The value at fraction `u` in [0, 1] of the range."""
        return math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))

    def fraction(self, value: float) -> float:
        """Where the value lies in the range: the inverse of `at`."""
        return math.log(value / self.low) / math.log(self.high / self.low)


@dataclass(frozen=True)
class Decay:
    """Decays of averages between `low` and `high`, with 1 - value spread evenly on a logarithmic
    scale; 0 <= low < high < 1. An average with decay b remembers about 1 / (1 - b) steps."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_plain("Decay", (self.low, self.high), float | int)
        if not 0 <= self.low < self.high < 1:
            raise ValueError(
                f"Decay({self.low}, {self.high}) is not a range: use 0 <= low < high < 1."
            )

    def at(self, u: float) -> float:
        """The value at fraction `u` in [0, 1] of the range."""
        return 1 - (1 - self.low) * ((1 - self.high) / (1 - self.low)) ** u

    def fraction(self, value: float) -> float:
        """Where the value lies in the range: the inverse of `at`."""
        return math.log((1 - value) / (1 - self.low)) / math.log((1 - self.high) / (1 - self.low))


@dataclass(frozen=True)
class Uniform:
    """Values between `low` and `high`, spread evenly; low < high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_plain("Uniform", (self.low, self.high), float | int)
        if not self.low < self.high:
            raise ValueError(f"Uniform({self.low}, {self.high}) is not a range: use low < high.")

    def at(self, u: float) -> float:
        """The value at fraction `u` in [0, 1] of the range."""
        return self.low + u * (self.high - self.low)

    def fraction(self, value: float) -> float:
        """Where the value lies in the range: the inverse of `at`."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, init=False)
class Choice:
    """One of the given values, each equally likely."""

    values: tuple[Value, ...]

    def __init__(self, *values: Value):
        if not values:
            raise ValueError("Choice() has no values: give it at least one.")
        _check_plain("Choice", values, float | int | str | bool)
        object.__setattr__(self, "values", values)

    def at(self, u: float) -> Value:
        """The value at fraction `u` in [0, 1], which the values divide into equal parts."""
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def fraction(self, value: Value) -> float:
        """The middle of the value's part of [0, 1]."""
        return (self.values.index(value) + 0.5) / len(self.values)


Domain = Log | Decay | Uniform | Choice

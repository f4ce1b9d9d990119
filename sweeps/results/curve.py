"""The baseline's loss as a function of the steps: what a speed-up is measured on.

With enough rungs it is a law, L(h) = floor + scale (h / 1000)^-exponent, fitted to log losses by
least squares. It smooths the luck of single rungs, and a straight line between two rungs would lie
above it. With fewer rungs, the curve is made of straight lines of log loss over log steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

LAW_NUMBERS = 3
LAW_RUNGS = 5  # fewer do not determine the law's numbers
BEYOND = 0.5 * math.log(2)  # how far a curve is believed outside its rungs, in log steps
_UNIT = 1000.0


@dataclass(frozen=True)
class Law:
    """L(h) = floor + scale (h / 1000)^-exponent."""

    floor: float
    scale: float
    exponent: float


@dataclass(frozen=True)
class Curve:
    """Log loss over log steps, estimated from the baseline's rungs.

    Attributes:
      steps: log steps [r] of the rungs, ascending.
      losses: log losses [r] at the rungs, as measured.
      law: the law; None if the curve is made of straight lines.
    """

    steps: np.ndarray
    losses: np.ndarray
    law: Law | None

    @property
    def low(self) -> float:
        """The fewest log steps at which the curve is believed."""
        return float(self.steps[0]) - BEYOND

    @property
    def high(self) -> float:
        """The most log steps at which the curve is believed."""
        return float(self.steps[-1]) + BEYOND

    def log_loss(self, log_steps: float) -> float:
        if self.law is None:
            return float(self.weights(log_steps) @ self._monotone)
        power = self.law.scale * math.exp(-self.law.exponent * (log_steps - math.log(_UNIT)))
        return math.log(self.law.floor + power)

    def slope(self, log_steps: float) -> float:
        """Derivative of the log loss; negative."""
        if self.law is not None:
            floor = self.law.floor / math.exp(self.log_loss(log_steps))
            return -self.law.exponent * (1 - floor)
        width = 1e-4
        low, high = self.log_loss(log_steps - width), self.log_loss(log_steps + width)
        return min((high - low) / (2 * width), -1e-6)

    def log_steps(self, log_loss: float) -> float:
        """Where the curve has this loss; -inf or inf if that is where it is not believed."""
        if log_loss > self.log_loss(self.low):
            return -math.inf
        if log_loss < self.log_loss(self.high):
            return math.inf
        if log_loss in (self.log_loss(self.low), self.log_loss(self.high)):
            return self.low if log_loss == self.log_loss(self.low) else self.high
        if self.law is not None:
            power = (math.exp(log_loss) - self.law.floor) / self.law.scale
            return math.log(_UNIT) - math.log(power) / self.law.exponent
        from scipy.optimize import root_scalar

        found = root_scalar(lambda x: self.log_loss(x) - log_loss, bracket=(self.low, self.high))
        return float(found.root)

    def weights(self, log_steps: float) -> np.ndarray:
        """How the curve at this point depends on the loss of each rung: a derivative [r].

        For the law, to first order: J(x) (J^T J)^-1 J^T, with J the derivatives by its numbers.
        """
        if self.law is not None:
            return _gradient(self.law, log_steps) @ self._solution
        found = np.zeros(len(self.steps))
        if len(self.steps) == 1:
            found[0] = 1.0
            return found
        last = len(self.steps) - 2
        i = int(np.clip(np.searchsorted(self.steps, log_steps) - 1, 0, last))
        fraction = (log_steps - self.steps[i]) / (self.steps[i + 1] - self.steps[i])
        found[i], found[i + 1] = 1 - fraction, fraction
        return found

    @cached_property
    def _solution(self) -> np.ndarray:
        """How the law's numbers depend on the losses [3, r]."""
        assert self.law is not None
        return np.linalg.pinv(np.stack([_gradient(self.law, x) for x in self.steps]))

    @property
    def residuals(self) -> np.ndarray:
        """Measured minus fitted log losses [r] of the law; empty without one."""
        if self.law is None:
            return np.zeros(0)
        return self.losses - np.array([self.log_loss(x) for x in self.steps])

    @cached_property
    def _monotone(self) -> np.ndarray:
        """The measured losses, each at least a little below the one before."""
        return np.minimum.accumulate(self.losses) - 1e-9 * np.arange(len(self.losses))


def fit(log_losses: Mapping[int, float]) -> Curve | None:
    """The curve through the baseline's mean log loss at each horizon; None without any.

    log_losses: steps of a rung -> log loss.
    """
    if not log_losses:
        return None
    horizons = sorted(log_losses)
    steps = np.log(np.array(horizons, float))
    losses = np.array([log_losses[h] for h in horizons])
    law = _fit_law(steps, losses) if len(horizons) >= LAW_RUNGS else None
    return Curve(steps, losses, law)


def _fit_law(steps: np.ndarray, losses: np.ndarray) -> Law | None:
    """The law of least squares; None if none describes a falling curve."""
    from scipy.optimize import least_squares

    x = steps - math.log(_UNIT)

    def residuals(numbers: np.ndarray) -> np.ndarray:
        floor, scale, exponent = np.exp(numbers)
        return np.log(floor + scale * np.exp(-exponent * x)) - losses

    lowest = float(np.exp(losses.min()))
    starts = [(0.5 * lowest, 0.5), (0.1 * lowest, 0.3), (0.9 * lowest, 1.0)]
    found = []
    for floor, exponent in starts:
        scale = max(float(np.exp(losses[0])) - floor, 1e-3 * lowest) * math.exp(exponent * x[0])
        start = np.log([floor, scale, exponent])
        bounds = (np.log([1e-6 * lowest, 1e-9, 0.02]), np.log([lowest, 1e9, 5.0]))
        found.append(least_squares(residuals, np.clip(start, *bounds), bounds=bounds))
    best = min(found, key=lambda fitted: fitted.cost)
    floor, scale, exponent = (float(value) for value in np.exp(best.x))
    return Law(floor, scale, exponent) if losses[-1] < losses[0] else None


def _gradient(law: Law, log_steps: float) -> np.ndarray:
    """Derivatives [3] of the law's log loss by the logs of its numbers."""
    x = log_steps - math.log(_UNIT)
    power = law.scale * math.exp(-law.exponent * x)
    return np.array([law.floor, power, -law.exponent * x * power]) / (law.floor + power)

"""The score: an optimizer's ladder is the baseline's curve at S times the steps.

S is the speed-up in patience: the baseline needs S times the steps for the same loss. All rungs
decide it together, by least squares of log losses. The trend says whether S grows or shrinks with
the length of the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sweeps.results.curve import Curve


@dataclass(frozen=True)
class Shift:
    """log S, and how it depends on what was measured.

    Attributes:
      value: log S; inf or -inf if all rungs lie beyond the baseline's curve.
      own: derivative [r] by the optimizer's log loss at each of its rungs, 0 where not used.
      baseline: derivative by the log loss at each of the baseline's rungs.
      stray: sum of squares of what a constant S and a trend leave unexplained.
      freedom: degrees of freedom of `stray`.
    """

    value: float
    own: np.ndarray
    baseline: np.ndarray
    stray: float = 0.0
    freedom: int = 0


@dataclass(frozen=True)
class Trend:
    """Change of log S per doubling of the steps, and its derivatives like those of a Shift."""

    value: float
    own: np.ndarray
    baseline: np.ndarray


def at_rung(log_loss: float, horizon: int, curve: Curve) -> Shift:
    """log S at a single rung; inf or -inf beyond the baseline's curve."""
    place = curve.log_steps(log_loss)
    if math.isinf(place):
        return Shift(place, np.zeros(1), np.zeros(len(curve.steps)))
    slope = curve.slope(place)
    return Shift(place - math.log(horizon), np.array([1 / slope]), -curve.weights(place) / slope)


def over_ladder(log_losses: np.ndarray, horizons: np.ndarray, curve: Curve) -> Shift:
    """log S over all rungs that lie on the baseline's curve.

    Args:
      log_losses: [r], mean log loss of each rung.
      horizons: [r], steps of each rung.
      curve: the baseline's curve.
    """
    used, shift, slopes = _fit(log_losses, horizons, curve, trend=False)
    if not used.any():
        sign = curve.log_steps(float(log_losses[-1]))
        end = curve.high if sign > 0 else curve.low  # its slope there says how sure the bound is
        slope = curve.slope(end)
        own = np.full(len(horizons), 1 / slope / len(horizons))
        return Shift(sign, own, -curve.weights(end) / slope)
    own, baseline = _derivatives(used, slopes[:, None], shift, horizons, curve)
    stray, freedom = 0.0, 0
    if used.sum() > 2:
        _, both, _ = _fit(log_losses, horizons, curve, trend=True)
        left = _left(log_losses[used], horizons[used], curve, both)
        stray, freedom = float((left**2).sum()), int(used.sum()) - 2
    return Shift(float(shift[0]), own[0], baseline[0], stray, freedom)


def trend(log_losses: np.ndarray, horizons: np.ndarray, curve: Curve) -> Trend | None:
    """The change of log S along the ladder; None for fewer than three rungs on the curve."""
    used, both, slopes = _fit(log_losses, horizons, curve, trend=True)
    if used.sum() < 3:
        return None
    design = slopes[:, None] * _basis(horizons[used])
    own, baseline = _derivatives(used, design, both, horizons, curve)
    return Trend(float(both[1]), own[1], baseline[1])


def _basis(horizons: np.ndarray) -> np.ndarray:
    """[r, 2]: a constant, and doublings from the middle of the ladder."""
    octaves = np.log2(horizons)
    return np.stack([np.ones(len(octaves)), octaves - octaves.mean()], 1)


def _places(horizons: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return np.log(horizons) + _basis(horizons)[:, : len(numbers)] @ numbers


def _left(
    log_losses: np.ndarray, horizons: np.ndarray, curve: Curve, numbers: np.ndarray
) -> np.ndarray:
    return log_losses - np.array([curve.log_loss(x) for x in _places(horizons, numbers)])


def _fit(
    log_losses: np.ndarray, horizons: np.ndarray, curve: Curve, trend: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(which rungs lie on the curve [r], (log S, trend), the curve's slope at the used ones)."""
    alone = np.array([curve.log_steps(float(loss)) for loss in log_losses])
    used = np.isfinite(alone)
    if not used.any():
        return used, np.zeros(1), np.zeros(0)
    y, h = log_losses[used], horizons[used]
    columns = 2 if trend and len(h) > 1 else 1
    shifts = alone[used] - np.log(h)
    numbers = np.linalg.lstsq(_basis(h)[:, :columns], shifts, rcond=None)[0]
    for _ in range(50):  # Gauss-Newton: the curve is nearly straight, so a few steps are enough
        slopes = np.array([curve.slope(x) for x in _places(h, numbers)])
        design = slopes[:, None] * _basis(h)[:, :columns]
        step = np.linalg.lstsq(design, _left(y, h, curve, numbers), rcond=None)[0]
        numbers = numbers + np.clip(step, -0.5, 0.5)
        if np.abs(step).max() < 1e-10:
            break
    slopes = np.array([curve.slope(x) for x in _places(h, numbers)])
    return used, numbers, slopes


def _derivatives(
    used: np.ndarray, design: np.ndarray, numbers: np.ndarray, horizons: np.ndarray, curve: Curve
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of the fitted numbers by the optimizer's losses, and by the baseline's."""
    inverse = np.linalg.pinv(design)
    own = np.zeros((len(inverse), len(used)))
    own[:, used] = inverse
    places = _places(horizons[used], numbers)
    return own, -inverse @ np.stack([curve.weights(x) for x in places])

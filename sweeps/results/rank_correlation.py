"""Kendall's tau-b over chosen pairs; pure."""

from __future__ import annotations

import numpy as np


def signs(values: np.ndarray) -> np.ndarray:
    """The sign of each pairwise difference: shape (N, N) for N values."""
    return np.sign(values[:, None] - values)


def tau_b(a: np.ndarray, b: np.ndarray, counted: np.ndarray) -> float | None:
    """Kendall's tau-b of two rankings over the pairs that count.

    Args:
      a, b: `signs` of the two rankings, shape (N, N).
      counted: which pairs count, shape (N, N).

    Returns:
      sum(a b) / sqrt(sum(a^2) sum(b^2)) (Kendall 1945); None if a ranking orders no pair.
    """
    a, b = a[counted], b[counted]
    scale = np.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum() / scale) if scale else None


def ordered_alike(a: np.ndarray, b: np.ndarray, counted: np.ndarray) -> float:
    """The share of the counted pairs that both order alike, of those that both order.

    Raises:
      ZeroDivisionError: if they order no pair.
    """
    both = (a * b)[counted]
    return int((both > 0).sum()) / int((both != 0).sum())

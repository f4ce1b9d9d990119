"""Where the committed entries are, and which of them is the baseline."""

from __future__ import annotations

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2] / "leaderboard"
_INSTALLED = Path(__file__).resolve().parents[1] / "leaderboard_entries"
FOLDER = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
BASELINE = (FOLDER / "baseline.txt").read_text().strip()
"""The optimizer on whose curve speed-ups are measured."""

"""Where the committed entries and published results are, and which entry is the baseline."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_INSTALLED = Path(__file__).resolve().parents[1]
FOLDER = _ROOT / "leaderboard"
EXTERNAL = _ROOT / "docs" / "external"
"""Results that others published; see external.py."""
if not FOLDER.is_dir():
    FOLDER, EXTERNAL = _INSTALLED / "leaderboard_entries", _INSTALLED / "published_results"
BASELINE = (FOLDER / "baseline.txt").read_text().strip()
"""The optimizer on whose curve speed-ups are measured."""

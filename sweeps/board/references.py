"""Entries of the leaderboard that stand beside one's own runs."""

from __future__ import annotations

from collections.abc import Sequence

from distill_bench.errors import UserError, suggestion
from sweeps.board import entries
from sweeps.board.entries import BASELINE, Entry


def find(task: str, names: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """The committed entries of these names other than the baseline's, which is always at hand, and
    a warning for each that is not counted.

    Raises:
      UserError: if the task has no file of that name.
    """
    found, warnings = [], []
    for name in dict.fromkeys(names):
        known = sorted(path.stem for path in (entries.FOLDER / task).glob("*.json"))
        if name not in known:
            raise UserError(
                f"--reference={name}: the leaderboard of {task} has no such entry."
                f"{suggestion(name, known)}\nIt has: {', '.join(known) or 'none'}."
            )
        if name != BASELINE:
            more, doubts = entries.load(names=[task], only=name)
            found += more
            warnings += doubts
    return found, warnings

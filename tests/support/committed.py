"""The committed leaderboard, read and compared once in each test process. Not to be changed."""

from __future__ import annotations

import functools
from typing import Any

from sweeps.board import build, entries
from sweeps.board.entries import BASELINE, Entry


@functools.cache
def leaderboard() -> tuple[list[Entry], list[str]]:
    return entries.load()


@functools.cache
def board() -> dict[str, Any]:
    return build.make(*leaderboard(), entries.notice())


@functools.cache
def few(task: str, count: int = 3) -> list[Entry]:
    """The baseline's entry and some others, for what does not depend on how many there are."""
    found = [entry for entry in leaderboard()[0] if entry.study.task == task]
    others = [entry for entry in found if entry.study.optimizer != BASELINE][:count]
    return [entry for entry in found if entry.study.optimizer == BASELINE] + others

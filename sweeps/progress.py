"""How far a sweep has come: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    def begin(self) -> None: ...
    def advance(self, steps: int) -> None: ...
    def say(self, text: str) -> None: ...


class _Lines:
    def __init__(self, label: str, total: int, every: float = 10.0):
        self._label, self._total, self._every = label, total, every
        self._done, self._began = 0, time.monotonic()
        self._last = self._began

    def begin(self) -> None:
        self._began = self._last = time.monotonic()

    def advance(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if steps and (now - self._last >= self._every or self._done == self._total):
            self._last = now
            rate = self._done / max(now - self._began, 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            self.say(f"{self._label}: {self._done}/{self._total} steps, {rate:.0f} a second, {left:.0f} s left")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: int) -> Iterator[Progress]:
    """A display for `total` trial-steps, on standard error."""
    if not sys.stderr.isatty():
        yield _Lines(label, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)

        class Live:
            def begin(self) -> None:
                bar.reset(task, total=total)

            def advance(self, steps: int) -> None:
                bar.advance(task, steps)

            def say(self, text: str) -> None:
                bar.console.print(text, markup=False, highlight=False)

        yield Live()

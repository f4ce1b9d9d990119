"""How far a sweep has come: a live bar on a terminal, plain lines elsewhere; on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_SECONDS = 10.0


class Progress(Protocol):
    def begin(self, label: str, steps: int) -> None:
        """A phase of so many trial-steps starts."""
        ...

    def advance(self, steps: int) -> None: ...
    def say(self, text: str) -> None: ...


class _Lines:
    def __init__(self) -> None:
        self.begin("", 0)

    def begin(self, label: str, steps: int) -> None:
        self._label, self._total, self._done = label, steps, 0
        self._began = self._last = time.monotonic()

    def advance(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS or self._done == self._total:
            self._last = now
            rate = self._done / max(now - self._began, 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            self.say(
                f"{self._label}: {self._done}/{self._total} steps, {rate:.0f} a second, {left:.0f} s left"
            )

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """A display for as long as the sweep runs."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:

        class Live:
            task = None

            def begin(self, label: str, steps: int) -> None:
                if self.task is not None:
                    bar.remove_task(self.task)
                self.task = bar.add_task(label, total=steps)

            def advance(self, steps: int) -> None:
                if self.task is not None:
                    bar.advance(self.task, steps)

            def say(self, text: str) -> None:
                bar.console.print(text, markup=False, highlight=False)

        yield Live()

"""Shows how far a sweep is, on standard error: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from distill_bench import streams
from distill_bench.log import to_stderr

if TYPE_CHECKING:
    import rich.progress

LINE_SECONDS = 10.0
_WIDTH_OF_BARS = 60  # cells of the narrowest terminal that shows a bar


class Display(Protocol):
    """What a run reports its progress to."""

    def begin(self, label: str, steps: int) -> None:
        """A phase starts; `steps` is its length, summed over trials; 0 if it has no steps."""
        ...

    def advance(self, steps: int) -> None:
        """The phase is `steps` further."""
        ...

    def say(self, text: str) -> None: ...

    def suspect(self, optimizers: Sequence[str]) -> None:
        """If the process dies or hangs from now on, one of these optimizers is the cause. If empty,
        the process cannot be hanging, however long it takes.

        Only the display of a supervised worker acts on this.
        """
        return None


class _Lines(Display):
    def __init__(self) -> None:
        self.begin("", 0)

    def begin(self, label: str, steps: int) -> None:
        self._label, self._total, self._done = label, steps, 0
        if label and not steps:
            self.say(f"{label} ...")
        self._began = self._last = time.monotonic()

    def advance(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if now - self._last >= LINE_SECONDS or self._done == self._total:
            self._last = now
            rate = self._done / max(now - self._began, 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            self.say(
                f"{self._label}: {self._done}/{self._total} steps, {rate:.0f} per second, "
                f"{left:.0f} s left"
            )

    def say(self, text: str) -> None:
        to_stderr(text)


class _Bar(Display):
    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._phase: rich.progress.TaskID | None = None

    def begin(self, label: str, steps: int) -> None:
        if self._phase is not None:
            self._bar.remove_task(self._phase)
        self._phase = self._bar.add_task(label, total=steps or None)

    def advance(self, steps: int) -> None:
        if self._phase is not None:
            self._bar.advance(self._phase, steps)

    def say(self, text: str) -> None:
        self._bar.console.print(streams.plain(text), markup=False, highlight=False)


@contextmanager
def progress() -> Iterator[Display]:
    """A display for the duration of the sweep."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=streams.lossy_stderr())
    with Progress(*bar_columns(console.width), console=console) as bar:
        yield _Bar(bar)


def bar_columns(width: int) -> list[rich.progress.ProgressColumn]:
    """What stands on the line of a bar: on a narrow terminal, the numbers alone."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    label, done = TextColumn("{task.description}"), MofNCompleteColumn()
    left = TimeRemainingColumn()
    if width < _WIDTH_OF_BARS:
        return [label, done, left]
    return [label, BarColumn(), done, TextColumn("steps"), left]

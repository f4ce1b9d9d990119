"""Ctrl-C, SIGTERM and SIGHUP: each ends a command in the same way, at any moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if name in signal.Signals.__members__  # Windows has no SIGHUP
)

_last_acts: list[Callable[[], None]] = []


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end."""

    def __init__(self, signum: int):
        super().__init__(signum)
        self.exit_code = 128 + signum


@contextmanager
def raised(last_words: str) -> Iterator[None]:
    """Within this context, the first signal raises `Interrupted`. The next one prints `last_words`
    and ends the process at once, because what the first one has to wait for may take long.

    Signals that the process ignores from its start, as with nohup, stay ignored.
    """

    def first(signum: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        for one in heeded:
            signal.signal(one, second)
        raise Interrupted(signum)

    def second(signum: int, frame: FrameType | None) -> None:
        for act in _last_acts:
            act()
        with suppress(OSError):
            os.write(2, f"\n{last_words}\n".encode())
        os._exit(128 + signum)

    interrupted = False
    heeded = [one for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, first) for one in heeded}
    try:
        yield
    finally:
        if not interrupted:  # else the process is about to end, and a signal must not disturb that
            for one, handler in before.items():
                signal.signal(one, handler)


@contextmanager
def ending_with(act: Callable[[], None]) -> Iterator[None]:
    """Within this context, a second signal does this before it ends the process."""
    _last_acts.append(act)
    try:
        yield
    finally:
        _last_acts.remove(act)

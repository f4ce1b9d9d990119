"""When the next checkpoint is due."""

from __future__ import annotations

import time
from collections.abc import Callable


def every(seconds: float) -> Callable[[], bool]:
    """Returns True every `seconds`, timed from the end of the previous checkpoint. That end is the
    first call after a True."""
    last, was_due = time.monotonic(), False

    def due() -> bool:
        nonlocal last, was_due
        now = time.monotonic()
        if was_due and seconds:
            last, was_due = now, False
        else:
            was_due = now - last >= seconds
        return was_due

    return due

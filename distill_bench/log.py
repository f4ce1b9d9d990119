"""What the library tells while it takes its time, such as the progress of a download: the logger "distill_bench", silent until someone listens."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

LOG = logging.getLogger("distill_bench")


def listen(say: Callable[[str], None]) -> None:
    """From now on `say`, and nothing else, is told each line."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    LOG.handlers = [Teller()]
    LOG.propagate = False
    LOG.setLevel(logging.INFO)


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

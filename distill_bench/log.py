"""The logger "distill_bench", which reports slow work such as a download.

It is silent until `listen` is called.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from distill_bench import streams

LOG = logging.getLogger("distill_bench")


def listen(report: Callable[[str], None]) -> None:
    """From now on, each line goes to `report` and nowhere else."""

    class Reporter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            report(record.getMessage())

    LOG.handlers = [Reporter()]
    LOG.propagate = False
    LOG.setLevel(logging.INFO)


def to_stderr(text: str) -> None:
    """Prints a message. Work goes on if nobody can read it: a closed pipe, a full disk."""
    try:
        print(streams.plain(text), file=sys.stderr, flush=True)
    except OSError:
        streams.discard(sys.stderr)

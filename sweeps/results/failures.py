"""How an optimizer's runs failed, in one line; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sweeps.planning.study import Result

Failure = Literal["diverged", "timeout", "crashed"]
WORDS: dict[Failure, str] = {
    "diverged": "diverged",
    "timeout": "timed out",
    "crashed": "crashed",
}
"""Statuses of failed runs in the order in which one is named before another -> what they say."""


def status_of(runs: Sequence[Result]) -> Failure:
    """The status of the runs' failures, the first of WORDS; "crashed" if none has failed."""
    found = {run.status for run in runs}
    failures: list[Failure] = [status for status in WORDS if status in found]
    return failures[0] if failures else "crashed"


def describe(runs: Sequence[Result], unit: str) -> str:
    """Such as "diverged 2 and crashed 1 of 3 seeds: the loss of step 7 is nan".

    What follows the colon is the headline of the first run with `status_of`.

    Args:
      runs: all runs that decide about the result, failed or not.
      unit: what the runs are called, in the plural.
    """
    one = unit.removesuffix("s") if len(runs) == 1 else unit
    counts = [
        f"{word} {n}"
        for status, word in WORDS.items()
        if (n := sum(run.status == status for run in runs))
    ]
    if not counts:
        return f"no result from {len(runs)} {one}"
    worst = status_of(runs)
    said = headline(next(run.detail or "" for run in runs if run.status == worst))
    return f"{' and '.join(counts)} of {len(runs)} {one}" + (f": {said}" if said else "")


def headline(detail: str) -> str:
    """The line of a failure's detail that says what went wrong: the first one, or that of a
    traceback that names the exception."""
    lines = [line for line in detail.splitlines() if line.strip()]
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    after = lines[frames[-1] + 1 :] if frames else lines
    return next((line.strip() for line in after if not line.startswith("  ")), "")

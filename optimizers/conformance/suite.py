"""Runs all checks on one optimizer."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from optimizers.conformance.checks import CHECKS, builds
from optimizers.contract.api import Optimizer


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check; `reason` says why it failed, None if it passed."""

    check: str
    reason: str | None


def examine(opt: Optimizer) -> Iterator[Outcome]:
    """Runs all checks on an optimizer and yields their outcomes.

    An exception fails the check; the reason names the line of the plug-in that raised it. If the
    optimizer cannot be built, the other checks are not run.
    """
    for check in CHECKS:
        try:
            reason = check(opt)
        except Exception as error:  # whatever the plug-in raises
            own = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename == opt.make.__code__.co_filename
            ]
            place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
            first_line = next(iter(str(error).strip().splitlines()), "")
            reason = f"{type(error).__name__}: {first_line}{place}"
        yield Outcome(check.__name__, reason)
        if reason and check is builds:
            return

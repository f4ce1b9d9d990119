"""Runs all conformance checks on one optimizer."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from optimizers.conformance.checks import CHECKS, STRUCTURAL, WARNINGS, Check
from optimizers.contract.api import Optimizer

_WARNINGS = frozenset(check.__name__ for check in WARNINGS)


@dataclass(frozen=True)
class Outcome:
    """The result of one check; `reason` says what it found, and is None if it passed."""

    check: str
    reason: str | None

    @property
    def fails(self) -> bool:
        """Whether it found something that is not a mere warning."""
        return self.reason is not None and self.check not in _WARNINGS


def examine(opt: Optimizer, checks: Sequence[Check] = CHECKS) -> Iterator[Outcome]:
    """Runs the checks one after another; stops after the first structural check that fails.

    If a check raises an exception, the reason names it and the line of the optimizer's file.
    """
    for check in checks:
        try:
            reason = check(opt)
        except Exception as error:  # the optimizer may raise anything
            own_frames = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if frame.filename == opt.make.__code__.co_filename
            ]
            place = f" ({own_frames[-1].filename}:{own_frames[-1].lineno})" if own_frames else ""
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
            reason = f"{type(error).__name__}: {first_line}{place}"
        yield Outcome(check.__name__, reason)
        if reason and check in STRUCTURAL:
            return

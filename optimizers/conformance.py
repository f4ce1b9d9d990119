"""What every optimizer must survive before its results can be believed.

    python -m optimizers.conformance my_opt.py
    python -m optimizers.conformance shampoo adamw optax:yogi

Each check prints one line: pass, or the reason why not. The exit code is 1 where any failed.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from optimizers import registry
from optimizers.api import Optimizer
from optimizers.checks import CHECKS, builds


@dataclass(frozen=True)
class Outcome:
    """One check of one optimizer; `reason` is None where it passed."""

    check: str
    reason: str | None


def examine(opt: Optimizer) -> Iterator[Outcome]:
    """All checks, one after another; an exception is a reason, with the line of the plug-in that raised it."""
    for check in CHECKS:
        try:
            reason = check(opt)
        except Exception as error:  # whatever the plug-in raises
            own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == opt.make.__code__.co_filename]
            where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}{where}"
        yield Outcome(check.__name__, reason)
        if reason and check is builds:
            return


def main(specs: list[str]) -> int:
    if not specs or specs[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if specs else 2
    failed = False
    for spec in specs:
        try:
            opt = registry.resolve(spec).optimizer
        except registry.UnknownOptimizer as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except Exception:  # the plug-in's file
            traceback.print_exc()
            return 2
        print(opt.name)
        for outcome in examine(opt):
            failed |= outcome.reason is not None
            print(
                f"  {'pass' if outcome.reason is None else 'FAIL'}  {outcome.check.replace('_', ' ')}{': ' + outcome.reason if outcome.reason else ''}",
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

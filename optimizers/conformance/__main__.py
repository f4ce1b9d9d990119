"""Checks that an optimizer keeps the contract, without which its results mean nothing.

    python -m optimizers.conformance my_opt.py
    python -m optimizers.conformance shampoo adamw optax:yogi

Installed, it is also the command `distill-bench-conformance`.

Each check prints one line: pass, or warn or FAIL with the reason. After a failure that the other
checks would only repeat, they do not run. The exit code is 1 if any check failed, and 2 if there is
no such optimizer.
"""

from __future__ import annotations

import sys
import traceback

from optimizers.conformance.checks import CHECKS
from optimizers.conformance.suite import examine
from optimizers.contract import registry


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
        except Exception:  # from the plug-in's own file
            traceback.print_exc()
            return 2
        print(opt.name)
        left = len(CHECKS)
        for outcome in examine(opt):
            left -= 1
            check = outcome.check.replace("_", " ")
            if outcome.reason is None:
                print(f"  pass  {check}", flush=True)
            else:
                failed = failed or outcome.fails
                word = "FAIL" if outcome.fails else "warn"
                print(f"  {word}  {check}: {outcome.reason}", flush=True)
        if left:
            print(f"  The other {left} checks need the last one to pass, and did not run.")
    return int(failed)


def script() -> None:
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    script()

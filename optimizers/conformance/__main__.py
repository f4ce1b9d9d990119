"""Checks that an optimizer keeps the contract, without which its results mean nothing.

    python -m optimizers.conformance my_opt.py
    python -m optimizers.conformance shampoo adamw optax:yogi

Each check prints one line: pass, or FAIL with the reason. The exit code is 1 if any check failed,
and 2 if there is no such optimizer.
"""

from __future__ import annotations

import sys
import traceback

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
        for outcome in examine(opt):
            check = outcome.check.replace("_", " ")
            if outcome.reason is None:
                print(f"  pass  {check}", flush=True)
            else:
                failed = True
                print(f"  FAIL  {check}: {outcome.reason}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

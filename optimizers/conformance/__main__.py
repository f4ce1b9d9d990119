"""What every optimizer must survive before its results can be believed.

    python -m optimizers.conformance my_opt.py
    python -m optimizers.conformance shampoo adamw optax:yogi

Each check prints one line: pass, or the reason why not. The exit code is 1 where any failed.
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

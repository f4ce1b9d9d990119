"""What every script does around its work: flags, errors on one screen, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from absl import flags

from distill_bench.errors import UserError

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


def run(main: Callable[[], int], usage: str) -> None:
    """Parses the flags, runs `main` and exits with its code; a user's mistake is one message, without a stack trace."""
    try:
        if any(argument in ("--help", "-h", "-help", "--helpshort", "-helpshort") for argument in sys.argv[1:]):
            print(f"{usage}\n\n{flags.FLAGS.main_module_help()}")
            sys.exit(OK)
        extra = flags.FLAGS(sys.argv)[1:]
        if extra:
            raise UserError(f"Unexpected argument {extra[0]!r}: flags are written --name=value. See --help.")
        sys.exit(main())
    except (flags.Error, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(MISUSED)
    except KeyboardInterrupt:
        print("\nInterrupted. Finished trials are kept; the same command goes on from there.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


def set_up_jax(compilation_cache: str | None) -> None:
    """Makes each core a device of its own and keeps compiled programs between runs; call before the first computation."""
    # One LAPACK thread for each call: lanes already keep every core busy.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import jax

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if compilation_cache:
        jax.config.update("jax_compilation_cache_dir", compilation_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

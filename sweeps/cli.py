"""What every script does around its work: flags, errors on one screen, exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from distill_bench.errors import SweepFailed, UserError
from distill_bench.log import listen, to_stderr
from distill_bench.machine import core_count

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130


_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def disk_trouble(error: OSError, place: Path) -> str | None:
    """What to tell a user whose disk is full or has gone away; None for any other error."""
    if error.errno not in _DISK_TROUBLE:
        return None
    return f"{place} could not be written: {error.strerror}.\nNothing finished is lost. Make room, and the same command goes on from the last checkpoint."


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


def run(main: Callable[..., int], usage: str, takes_arguments: bool = False) -> None:
    """Parses the flags, runs `main` and exits with its code; a user's mistake is one message, without a stack trace.

    takes_arguments: whether `main` wants the arguments that are no flags, as a list.
    """
    signal.signal(signal.SIGTERM, _terminate)
    listen(to_stderr)
    try:
        if any(
            argument in ("--help", "-h", "-help", "--helpshort", "-helpshort")
            for argument in sys.argv[1:]
        ):
            print(f"{usage}\n\n{flags.FLAGS.main_module_help()}")
            sys.exit(OK)
        extra = flags.FLAGS(sys.argv)[1:]
        if extra and not takes_arguments:
            raise UserError(
                f"Unexpected argument {extra[0]!r}: flags are written --name=value. See --help."
            )
        sys.exit(main(extra) if takes_arguments else main())
    except (flags.Error, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(MISUSED)
    except SweepFailed as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(FAILED)
        if not (said := disk_trouble(error, Path.cwd())):
            raise
        print(f"error: {said}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def set_up_jax(compilation_cache: str | None, cpu_devices: int | None = None) -> None:
    """Makes each core a device of its own and keeps compiled programs between runs; call before the first computation."""
    # One LAPACK thread for each call: lanes already keep every core busy.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import jax

    jax.config.update("jax_num_cpu_devices", cpu_devices or core_count())
    if compilation_cache:
        jax.config.update("jax_compilation_cache_dir", compilation_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

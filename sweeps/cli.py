"""What the scripts in this folder share: how they run, exit and set up jax."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from distill_bench import command, machine

OK, FAILED = command.OK, command.FAILED

_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def run(
    main: Callable[..., int], values: command.Flags, usage: str, takes_arguments: bool = False
) -> None:
    """Runs `main` as the command that was typed, and exits with its code; see command.run."""
    signal.signal(signal.SIGTERM, _terminate)
    code = command.run(
        main,
        values,
        usage,
        sys.argv,
        takes_arguments=takes_arguments,
        after_interrupt="The same command continues from the last checkpoint.",
        explain=lambda error: disk_trouble(error, Path.cwd()),
    )
    sys.exit(code)


def _terminate(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


def disk_trouble(error: OSError, place: Path) -> str | None:
    """The message for a disk that is full or has gone away; None for any other error."""
    if error.errno not in _DISK_TROUBLE:
        return None
    return (
        f"{place} could not be written: {error.strerror}.\nNothing finished is lost. "
        "Free some space; the same command then continues from the last checkpoint."
    )


def set_up_jax(compilation_cache: str | None, cpu_devices: int = 1) -> None:
    """Pins XLA's threads and keeps compiled programs. Call before any computation.

    Args:
      compilation_cache: folder that keeps compiled programs between runs; None for none.
      cpu_devices: number of devices that jax itself makes of a CPU. A sweep makes its own, one for
        each core, unless it spans several hosts.
    """
    machine.pin_threads()
    import jax

    jax.config.update("jax_num_cpu_devices", cpu_devices)
    if compilation_cache:
        jax.config.update("jax_compilation_cache_dir", compilation_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

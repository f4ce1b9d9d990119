"""What the scripts in this folder share: how they run, exit and set up jax."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from distill_bench import command, machine, settings
from distill_bench.errors import UserError

OK, FAILED = command.OK, command.FAILED
ROOT = Path(__file__).resolve().parent.parent  # the folder of the packages

_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def run(
    main: Callable[..., int], values: command.Flags, usage: str, takes_arguments: bool = False
) -> None:
    """Runs `main` as the command that was typed, and exits with its code; see command.run."""

    def work(*arguments: list[str]) -> int:
        user_folder_last()
        return main(*arguments)

    code = command.run(
        work,
        values,
        usage,
        sys.argv,
        takes_arguments=takes_arguments,
        after_interrupt="The same command continues from the last checkpoint.",
        explain=lambda error: storage_trouble(error, Path.cwd()),
    )
    sys.exit(code)


def user_folder_last() -> None:
    """Moves the current folder to the end of sys.path: a file there, such as jax.py, then cannot
    hide a module that this project needs. Paths become absolute, because the code of an optimizer
    may change the current folder.

    Raises:
      UserError: if the current folder has been removed.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise UserError("The current folder does not exist any more: change to another.") from None
    others = _without(here, sys.path)
    sys.path[:] = others if os.path.samefile(here, ROOT) else [*others, here]


def python_path() -> str:
    """PYTHONPATH for a process that runs this project: its folder, then the user's PYTHONPATH
    without the current folder."""
    typed = os.environ.get("PYTHONPATH")
    given = typed.split(os.pathsep) if typed else []
    return os.pathsep.join(dict.fromkeys([str(ROOT), *_without(os.getcwd(), given)]))


def clean_environment() -> dict[str, str]:
    """The environment for a process that runs this project, without what changes numbers.

    Raises:
      UserError: if XLA_FLAGS asks for fast math or names a file.
    """
    return settings.cleaned(os.environ)[0] | {"PYTHONPATH": python_path()}


def _without(folder: str, paths: Iterable[str]) -> list[str]:
    """The paths, absolute, without `folder` unless it is ROOT."""
    hidden = {os.path.realpath(folder)} - {os.path.realpath(ROOT)}
    # What does not exist may be no path at all, but the mark of an import hook.
    found = [os.path.abspath(path) if os.path.exists(path or ".") else path for path in paths]
    return [path for path in found if os.path.realpath(path) not in hidden]


def storage_trouble(error: OSError, place: Path) -> str | None:
    """The message for a disk that is full or gone, or a file that cannot be used; None for any
    other error.

    place: what was being written, if the error names no file.
    """
    if error.errno in _DISK_TROUBLE:
        what = f"{error.filename or place} could not be written: {error.strerror}."
        remedy = "Free some space"
    elif error.filename is not None:
        what = f"{error.filename} cannot be used: {error.strerror}."
        remedy = "Remove the cause"
    else:
        return None
    return (
        f"{what}\nNothing finished is lost. "
        f"{remedy}; the same command then continues from the last checkpoint."
    )


def set_up_jax(
    compilation_cache: str | None, cpu_devices: int = 1, spans_hosts: bool = False
) -> None:
    """Pins XLA's threads and keeps compiled programs. Call before any computation.

    Args:
      compilation_cache: folder that keeps compiled programs between runs; None for none.
      cpu_devices: number of devices that jax itself makes of a CPU. A sweep makes its own, one for
        each core, unless it spans several hosts.
      spans_hosts: jax looks for devices later, when the hosts have met.

    Raises:
      UserError: if there is no device of the platform that the environment asks for.
    """
    machine.pin_threads()
    import jax

    jax.config.update("jax_num_cpu_devices", cpu_devices)
    if compilation_cache:
        jax.config.update("jax_compilation_cache_dir", compilation_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if spans_hosts:
        return
    try:
        jax.devices()
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"jax cannot start: {error}\n"
            f"JAX_PLATFORMS={platforms} names the platform; unset, jax takes the fastest it finds."
        ) from None

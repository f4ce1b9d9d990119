"""Settings that change numbers: jax's defaults hold, whatever the environment or a plug-in says.

The variable `JAX_ENABLE_X64=1`, or the line `jax.config.update("jax_enable_x64", True)` in an
optimizer's file, would change the numbers of every optimizer in the process.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill_bench.errors import UserError

# Settings of jax that say where to run, what to keep and what to print. All others may change
# numbers, or which programs are compiled.
_HARMLESS = re.compile(
    "jax_(platforms?|platform_name|num_cpu_devices|(cuda|rocm|oneapi)_visible_devices"
    "|coordinator_.*|cluster_.*|num_processes|process_id|local_device_ids|distributed_.*"
    "|cpu_collectives_implementation|(.*_)?compilation_cache.*|.*persistent_cache_.*"
    "|log_.*|logging_.*|debug_log_.*|traceback_.*|tracer_error_.*|dump_.*|pprint_.*"
    "|explain_cache_misses|hlo_source_.*|include_.*|captured_constants_.*|compiler_detailed_.*)"
)
_HARMLESS_XLA = re.compile(
    "--xla_(dump_.*|force_host_platform_device_count|cpu_collective_.*|hlo_profile|.*_timeout_.*)"
)
_FAST = re.compile("--xla_.*fast_")  # fast math may drop terms and NaNs
_LAPACK_THREADS = "OPENBLAS_NUM_THREADS"
_RECORDED = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")


def _changes_numbers(variable: str) -> bool:
    name = variable.lower()
    return name.startswith("openblas_") or (
        name.startswith("jax_") and not _HARMLESS.fullmatch(name)
    )


def cleaned(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The environment without the variables that change numbers, and what was removed, such as
    "JAX_ENABLE_X64=1".

    Raises:
      UserError: if XLA_FLAGS asks for fast math or names a file.
    """
    flags = environment.get("XLA_FLAGS", "").split()
    if fast := [flag for flag in flags if _FAST.match(flag)]:
        raise UserError(
            f"XLA_FLAGS holds {fast[0]}, which changes numbers: take it out of XLA_FLAGS."
        )
    if flags and not flags[0].startswith("-"):
        raise UserError(
            f"XLA_FLAGS={flags[0]} names a file: write the flags themselves into XLA_FLAGS."
        )
    found = sorted(name for name in environment if _changes_numbers(name))
    removed = [f"{name}={environment[name]}" for name in found if name != _LAPACK_THREADS]
    kept = {name: value for name, value in environment.items() if name not in found}
    # One LAPACK thread for each call, because the lanes already keep every core busy.
    return kept | {_LAPACK_THREADS: "1"}, removed


def take_over() -> list[str]:
    """Removes the environment variables that change numbers, from this process and those that it
    starts. Call it before jax is imported. Returns what was removed, such as "JAX_ENABLE_X64=1".

    Raises:
      UserError: if XLA_FLAGS asks for fast math or names a file, or if jax is imported already.
    """
    kept, removed = cleaned(os.environ)
    if removed and "jax" in sys.modules:
        raise UserError(f"{removed[0]} changes numbers: unset it, and start again.")
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
    os.environ.update(kept)
    return removed


def recorded() -> dict[str, str]:
    """The environment variables that may change numbers and are a user's choice: name -> value.

    They are part of a study's versions. XLA's flags that change nothing are left out.
    """
    values = {name.lower(): os.environ.get(name, "") for name in _RECORDED}
    flags = values["xla_flags"].split()
    values["xla_flags"] = " ".join(flag for flag in flags if not _HARMLESS_XLA.match(flag))
    return {name: value for name, value in values.items() if value}


@dataclass(frozen=True)
class Settings:
    """Settings of jax, and environment variables that change numbers, at one moment.

    Attributes:
      config: name of each of jax's settings -> its value in this thread.
      variables: name -> value.
    """

    config: Mapping[str, Any]
    variables: Mapping[str, str]

    def restore(self) -> list[str]:
        """Sets back what has changed since. Returns what it was, such as "jax_enable_x64 = True".

        Raises:
          UserError: if one of them cannot be set back: its context was entered and never left.
        """
        import jax

        now = current()
        changed = {
            name: value for name, value in now.config.items() if value != self.config.get(name)
        }
        for name in changed:
            jax.config.update(name, self.config[name])
            if current().config[name] != self.config[name]:
                raise UserError(
                    f"jax's setting {name} was changed to {changed[name]} and cannot be set back. "
                    "Change it with a context, and leave the context."
                )
        found = [f"{name} = {value}" for name, value in changed.items()]
        for name in sorted({*now.variables, *self.variables}):
            if (value := now.variables.get(name)) != self.variables.get(name):
                found.append(f"{name} = {value}" if value is not None else f"{name} unset")
                os.environ.pop(name, None)
                if name in self.variables:
                    os.environ[name] = self.variables[name]
        return found


def current() -> Settings:
    """The settings that hold now, of those that change numbers."""
    import jax

    # An attribute is the value in this thread; a few settings have the global value alone.
    config = {
        name: getattr(jax.config, name, value)
        for name, value in jax.config.values.items()
        if not _HARMLESS.fullmatch(name)
    }
    watched = [n for n in os.environ if n in _RECORDED or n in _THREADS or _changes_numbers(n)]
    return Settings(config, {name: os.environ[name] for name in watched})


_THREADS = frozenset({"NPROC", "PJRT_NPROC"})

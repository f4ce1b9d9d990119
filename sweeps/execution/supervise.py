"""Watches the process that computes, and starts it again without what killed it.

One worker runs all optimizers together, so that they share the teacher. If it dies or stalls, the optimizer
that it was waiting for is the suspect: the next worker resumes the others from their checkpoints, then runs
the suspect by itself. If that ends the same way, its trials have crashed (or timed out) and the sweep goes on.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from distill_bench.errors import SweepFailed, UserError
from sweeps.execution.progress import Progress

_ROOT = Path(__file__).resolve().parents[2]
_LOG_TAIL = 30  # lines of a dead process's output that are kept with its trials


@dataclass(frozen=True)
class Limits:
    """What a worker may take before it is ended: seconds without progress while it waits for an optimizer, GiB of memory (0: any)."""

    stall_seconds: float
    memory_gib: float


@dataclass(frozen=True)
class _Fault:
    status: str
    what: str
    suspects: tuple[str, ...]


def supervise(request: dict[str, Any], limits: Limits, display: Progress) -> list[Path]:
    """Runs the request to its end, whatever its optimizers do. Returns the folders of its studies.

    Raises:
      UserError: where the request is wrong, or its optimizers cannot even be imported.
      SweepFailed: where the machine's state keeps it from going on.
    """
    alone: set[str] = set()
    dead: dict[str, tuple[str, str]] = {}
    strikes: dict[str, int] = {}
    while True:
        ended = _run({**request, "alone": sorted(alone), "dead": dead}, limits, display)
        if not isinstance(ended, _Fault):
            return ended
        if request["where"]["executor"] == "multihost":
            how = ended.what.splitlines()[0]
            raise SweepFailed(
                f"{how}.\nThe processes of a --multihost sweep end together; the one that ended first says why (see worker.log in its --outdir).\n"
                "The same command on every host goes on from the last checkpoint."
            )
        if not ended.suspects:
            raise UserError(f"The process ended before any training: {ended.what}")
        for name in ended.suspects if len(ended.suspects) == 1 else ():
            strikes[name] = strikes.get(name, 0) + 1
        gone = {name for name in ended.suspects if strikes.get(name, 0) > 1}
        dead |= dict.fromkeys(gone, (ended.status, ended.what))
        alone |= set(ended.suspects)
        headline = ended.what.splitlines()[0]
        if gone:
            display.say(
                f"{', '.join(sorted(gone))}: {headline}. Its trials have ended ({ended.status}); the others go on."
            )
        else:
            display.say(
                f"{headline} while running {', '.join(ended.suspects)}. Resuming, with each of these by itself."
            )


def _run(request: dict[str, Any], limits: Limits, display: Progress) -> list[Path] | _Fault:
    """One worker, from start to end. What it prints is kept in the output folder, as worker.log."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    }
    read, write = os.pipe()
    with tempfile.TemporaryFile() as output, os.fdopen(read, "rb") as pipe:
        worker = subprocess.Popen(
            [sys.executable, "-m", "sweeps.execution.worker"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[write],
            env=environment,
        )
        os.close(write)
        try:
            assert worker.stdin is not None
            worker.stdin.write(json.dumps({**request, "pipe": write}).encode())
            worker.stdin.close()
            return _watch(worker, pipe, limits, display, output)
        finally:
            worker.kill()
            worker.wait()
            output.seek(0)
            root = Path(request["outdir"])
            if (printed := output.read()) and root.is_dir():
                with open(root / "worker.log", "ab") as log:
                    log.write(printed)


def _watch(
    worker: subprocess.Popen, pipe: Any, limits: Limits, display: Progress, output: IO[bytes]
) -> list[Path] | _Fault:
    suspects: tuple[str, ...] = ()
    trusted = False  # whether nothing but this project's own code runs, which may take its time
    buffer, heard = b"", time.monotonic()
    os.set_blocking(pipe.fileno(), False)
    selector = selectors.DefaultSelector()
    selector.register(pipe, selectors.EVENT_READ)
    while True:
        if selector.select(timeout=1.0):
            content = pipe.read()
            if content == b"":  # the worker has ended without a word of its end
                code = worker.wait()
                return _Fault("crashed", f"{_how_it_ended(code)}\n{_tail(output)}", suspects)
            *lines, buffer = (buffer + (content or b"")).split(b"\n")
            heard = time.monotonic()
            for line in lines:
                match json.loads(line):
                    case ["suspect", names]:
                        suspects, trusted = tuple(names), not names
                    case ["begin", [label, steps]]:
                        display.begin(label, steps)
                    case ["advance", steps]:
                        display.advance(steps)
                    case ["say", text]:
                        display.say(text)
                    case ["done", folders]:
                        return [Path(folder) for folder in folders]
                    case ["misuse", text]:
                        raise UserError(text)
                    case ["failed", text]:
                        raise SweepFailed(text)
        if limits.memory_gib and (used := _memory_gib(worker.pid)) > limits.memory_gib:
            return _Fault(
                "crashed",
                f"The process took {used:.1f} GiB of memory, more than --memory_gib={limits.memory_gib:g}",
                suspects,
            )
        if not trusted and time.monotonic() - heard > limits.stall_seconds:
            what = (
                f"No progress for {limits.stall_seconds:g} s (--stall_seconds)\nThe likeliest cause on CPU is a batched LAPACK call "
                "(eigh, qr, svd or cholesky of a stack), which deadlocks when two run at once: use jax.lax.map over single matrices."
            )
            worker.send_signal(signal.SIGABRT)  # faulthandler writes where it hangs
            time.sleep(0.5)
            return _Fault("timeout", f"{what}\n{_tail(output)}", suspects)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"The process ended by itself with exit code {code}"
    try:
        return f"The process was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"The process was ended by signal {-code}"


def _memory_gib(pid: int) -> float:
    """Resident memory, where /proc tells; else 0."""
    try:
        return (
            int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            * os.sysconf("SC_PAGE_SIZE")
            / 2**30
        )
    except (OSError, ValueError, IndexError):
        return 0.0


def _tail(output: IO[bytes]) -> str:
    output.seek(0)
    return "\n".join(output.read().decode(errors="replace").splitlines()[-_LOG_TAIL:])

"""Watches the process that trains, and restarts it without the optimizer that killed it.

One such worker trains all optimizers together, so that they share the teacher. If it dies or
stalls, the optimizer that it was waiting for is the suspect. The next worker resumes the others
from their checkpoints, then runs the suspect by itself. If the suspect ends that worker too, its
trials have crashed (or timed out), and the sweep goes on without it.
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
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from distill_bench.errors import SweepFailed, UserError
from sweeps.execution.messages import Kind
from sweeps.execution.progress import Display
from sweeps.execution.request import Fault, Faults, Request

_ROOT = Path(__file__).resolve().parents[2]
_LOG_TAIL = 30  # lines of a dead worker's output that are stored with its trials
_STRIKES = 2  # an optimizer is dead once it has ended a worker this often as the only suspect


@dataclass(frozen=True)
class Limits:
    """When to end a worker.

    Attributes:
      stall_seconds: longest time without progress while it waits for an optimizer.
      memory_gib: most memory that it may use, in GiB; 0 for no limit.
    """

    stall_seconds: float
    memory_gib: float


@dataclass(frozen=True)
class _Failure:
    """A worker's unplanned end, and the optimizers that may have caused it."""

    fault: Fault
    suspects: tuple[str, ...]

    @property
    def headline(self) -> str:
        return self.fault.detail.splitlines()[0]


def supervise(request: Request, limits: Limits, display: Display) -> list[Path]:
    """Runs the request to its end, whatever its optimizers do. Returns the folders of its studies.

    Raises:
      UserError: if the request is wrong, or its optimizers cannot even be imported.
      SweepFailed: if the state of the machine prevents going on.
    """
    faults = request.faults
    strikes: Counter[str] = Counter()
    while True:
        outcome = _run_worker(replace(request, faults=faults), limits, display)
        if not isinstance(outcome, _Failure):
            return outcome
        if request.resources.executor == "multihost":
            raise SweepFailed(
                f"{outcome.headline}.\nThe processes of a --multihost sweep end together; the one "
                "that ended first says why (see worker.log in its --outdir).\n"
                "The same command on every host goes on from the last checkpoint."
            )
        if not outcome.suspects:
            raise UserError(f"The process ended before any training: {outcome.fault.detail}")
        if len(outcome.suspects) == 1:
            strikes.update(outcome.suspects)
        dead = {name for name in outcome.suspects if strikes[name] >= _STRIKES}
        faults = Faults(
            faults.alone | set(outcome.suspects),
            {**faults.dead, **dict.fromkeys(dead, outcome.fault)},
        )
        display.say(_consequence(outcome, dead))


def _consequence(failure: _Failure, dead: set[str]) -> str:
    if dead:
        return (
            f"{', '.join(sorted(dead))}: {failure.headline}. Its trials have ended "
            f"({failure.fault.status}); the others go on."
        )
    return (
        f"{failure.headline} while running {', '.join(failure.suspects)}. "
        "Resuming, with each of these by itself."
    )


def _run_worker(request: Request, limits: Limits, display: Display) -> list[Path] | _Failure:
    """Runs one worker to its end. What it prints is appended to worker.log in the output folder."""
    python_path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    read, write = os.pipe()
    with tempfile.TemporaryFile() as output, os.fdopen(read, "rb") as pipe:
        worker = subprocess.Popen(
            [sys.executable, "-m", "sweeps.execution.worker", str(write)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=[write],
            env=os.environ | {"PYTHONPATH": python_path},
        )
        os.close(write)
        try:
            assert worker.stdin is not None
            worker.stdin.write(request.to_json().encode())
            worker.stdin.close()
            return _Watch(worker, pipe, output, limits, display).until_the_end()
        finally:
            worker.kill()
            worker.wait()
            output.seek(0)
            outdir = Path(request.outdir)
            if (printed := output.read()) and outdir.is_dir():
                with open(outdir / "worker.log", "ab") as log:
                    log.write(printed)


@dataclass
class _Watch:
    """Follows one worker.

    Attributes:
      worker: the process.
      pipe: where its messages come from.
      output: what it has printed.
      limits: when to end it.
      display: where its progress is shown.
      suspects: optimizers that it waits for.
      trusted: whether only this project's own code is running, which may take any time.
      unread: the start of a message whose end has not arrived.
      last_heard: time of the last message, in seconds.
    """

    worker: subprocess.Popen[bytes]
    pipe: IO[bytes]
    output: IO[bytes]
    limits: Limits
    display: Display
    suspects: tuple[str, ...] = ()
    trusted: bool = False
    unread: bytes = b""
    last_heard: float = field(default_factory=time.monotonic)

    def until_the_end(self) -> list[Path] | _Failure:
        os.set_blocking(self.pipe.fileno(), False)
        selector = selectors.DefaultSelector()
        selector.register(self.pipe, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=1.0):
                content = self.pipe.read()
                if content == b"":  # the pipe is closed, and the worker did not say why
                    how = _how_it_ended(self.worker.wait())
                    return self._failure("crashed", f"{how}\n{self._log_tail()}")
                folders = self._receive(content or b"")
                if folders is not None:
                    return folders
            failure = self._exceeded_memory() or self._stalled()
            if failure:
                return failure

    def _receive(self, content: bytes) -> list[Path] | None:
        """Handles the messages. Returns the folders of the studies if the worker is done."""
        self.last_heard = time.monotonic()
        *lines, self.unread = (self.unread + content).split(b"\n")
        for line in lines:
            match json.loads(line):
                case [Kind.SUSPECT, names]:
                    self.suspects, self.trusted = tuple(names), not names
                case [Kind.BEGIN, [label, steps]]:
                    self.display.begin(label, steps)
                case [Kind.ADVANCE, steps]:
                    self.display.advance(steps)
                case [Kind.SAY, text]:
                    self.display.say(text)
                case [Kind.DONE, folders]:
                    return [Path(folder) for folder in folders]
                case [Kind.MISUSE, text]:
                    raise UserError(text)
                case [Kind.FAILED, text]:
                    raise SweepFailed(text)
        return None

    def _exceeded_memory(self) -> _Failure | None:
        limit = self.limits.memory_gib
        if not limit or (used := _memory_gib(self.worker.pid)) <= limit:
            return None
        return self._failure(
            "crashed",
            f"The process took {used:.1f} GiB of memory, more than --memory_gib={limit:g}",
        )

    def _stalled(self) -> _Failure | None:
        limit = self.limits.stall_seconds
        if self.trusted or time.monotonic() - self.last_heard <= limit:
            return None
        self.worker.send_signal(signal.SIGABRT)  # faulthandler then prints where it hangs
        time.sleep(0.5)
        return self._failure(
            "timeout",
            f"No progress for {limit:g} s (--stall_seconds)\n"
            "The likeliest cause on CPU is a batched LAPACK call (eigh, qr, svd or cholesky of a "
            "stack), which deadlocks when two run at once: use jax.lax.map over single matrices."
            f"\n{self._log_tail()}",
        )

    def _failure(self, status: Literal["crashed", "timeout"], detail: str) -> _Failure:
        return _Failure(Fault(status, detail), self.suspects)

    def _log_tail(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL:])


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"The process ended by itself with exit code {code}"
    try:
        return f"The process was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"The process was ended by signal {-code}"


def _memory_gib(pid: int) -> float:
    """Resident memory in GiB; 0 if /proc does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (OSError, ValueError, IndexError):
        return 0.0

"""Runs one worker, and watches it to its end.

Nothing that the worker or its optimizers do is trusted to be well-behaved: it is watched through
two pipes, one for its messages and one for what it prints, of which neither is read without bounds.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distill_bench import interrupts
from distill_bench.errors import SweepFailed, UserError
from sweeps.execution import worker_process
from sweeps.execution.messages import Kind, Reader
from sweeps.execution.printed import Printed
from sweeps.execution.progress import Display
from sweeps.execution.request import Fault, Request

_LOOK_SECONDS = 1.0  # between two looks at a worker that is silent
_SUSPENDED_SECONDS = 5.0  # after which a look is so late that this process must have been stopped
_LAST_WORDS_SECONDS = 10.0  # for a stalled worker to print where it hangs
_FOREIGN_BYTES = 1 << 24  # of a worker that writes something else to the pipe of its messages
_READ_BYTES = 1 << 16
_LAST_READS = 64  # of what a worker that has ended left in a pipe


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
class Done:
    """A worker's planned end.

    Attributes:
      specs: its optimizers by name, as typed.
      folders: of their studies, in the same order; empty for a worker that stores nothing.
    """

    specs: Mapping[str, str]
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Failure:
    """A worker's unplanned end.

    Attributes:
      fault: how it ended.
      suspects: names of the optimizers that may have caused it.
      specs: its optimizers by name, as typed; empty if it had not planned them yet.
      importing: the optimizer, as typed, whose file it was importing, if any.
    """

    fault: Fault
    suspects: tuple[str, ...]
    specs: Mapping[str, str]
    importing: str | None

    @property
    def headline(self) -> str:
        return self.fault.detail.splitlines()[0]


def run_worker(request: Request, limits: Limits, display: Display) -> Done | Failure:
    """Runs one worker to its end. What it prints is appended to worker.log in the output folder.

    Raises:
      UserError, SweepFailed: what the worker reports.
    """
    token, printed = secrets.token_hex(16), Printed()
    pipe, worker = worker_process.start()
    with interrupts.ending_with(lambda: worker_process.kill(worker)):
        try:
            assert worker.stdin is not None
            with suppress(BrokenPipeError), worker.stdin as stdin:  # if it ends before it reads
                stdin.write(f"{token}\n{request.to_json()}".encode())
            with worker_process.stopped_together(worker):
                return _Watch(worker, pipe, Reader(token), printed, limits, display).until_the_end()
        finally:
            worker_process.kill(worker)
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
            os.close(pipe)
            _log(printed, Path(request.outdir), display)


def _log(printed: Printed, outdir: Path, display: Display) -> None:
    if not outdir.is_dir():
        return
    try:
        printed.append_to(outdir / "worker.log")
    except OSError as error:
        display.say(f"{outdir / 'worker.log'} could not be written: {error.strerror}")


@dataclass
class _Silence:
    """How long nothing was heard of a worker. It starts again when this process was stopped for a
    while, as by Ctrl-Z or with a laptop's lid, because then the worker was stopped as well."""

    heard: float = field(default_factory=time.monotonic)
    looked: float = field(default_factory=time.monotonic)

    def end(self) -> None:
        self.heard = time.monotonic()

    def seconds(self) -> float:
        """Call it often: a long time between two calls counts as a stop."""
        now = time.monotonic()
        if now - self.looked > _SUSPENDED_SECONDS:
            self.heard = now
        self.looked = now
        return now - self.heard


@dataclass
class _Watch:
    """Follows one worker.

    Attributes:
      worker: the process; its stdout holds what it prints.
      pipe: descriptor where its messages arrive.
      reader: finds the messages.
      printed: what it has printed.
      limits: when to end it.
      display: where its progress is shown.
      suspects: optimizers that it waits for.
      trusted: whether only this project's own code is running, which may take any time.
      specs: its optimizers by name, as typed.
      importing: the optimizer, as typed, whose file it is importing.
      silence: since its last message.
      outcome: how it ended, once it has.
    """

    worker: subprocess.Popen[bytes]
    pipe: int
    reader: Reader
    printed: Printed
    limits: Limits
    display: Display
    suspects: tuple[str, ...] = ()
    trusted: bool = True
    specs: Mapping[str, str] = field(default_factory=dict)
    importing: str | None = None
    silence: _Silence = field(default_factory=_Silence)
    outcome: Done | Failure | None = None

    def until_the_end(self) -> Done | Failure:
        assert self.worker.stdout is not None
        with selectors.DefaultSelector() as pipes:
            for pipe, handle in (
                (self.pipe, self._receive),
                (self.worker.stdout.fileno(), self.printed.add),
            ):
                os.set_blocking(pipe, False)
                pipes.register(pipe, selectors.EVENT_READ, handle)
            while not self.outcome:
                self._look(pipes)
        return self.outcome

    def _look(self, pipes: selectors.BaseSelector) -> None:
        # A child of the worker may hold the pipes open, so that their end says nothing of the
        # worker's. What it wrote before its end is in them.
        exit_code = self.worker.poll()
        whole = len(pipes.get_map()) == 2  # else the worker is about to end, most likely
        _read(pipes, _LOOK_SECONDS if whole and exit_code is None else 0.1)
        if exit_code is not None:
            for _ in range(_LAST_READS):
                _read(pipes, 0.0)
        if self.outcome:
            return
        if exit_code is not None:
            self.outcome = self._failure(
                "crashed", f"{worker_process.describe_end(exit_code)}\n{self._last_lines()}"
            )
        else:
            self.outcome = self._flooded() or self._exceeded_memory() or self._stalled(pipes)

    def _receive(self, content: bytes) -> None:
        for kind, value in self.reader.feed(content):
            self.silence.end()
            match kind:
                case Kind.IMPORTING:
                    self.importing, self.trusted = value, False
                case Kind.PLANNED:
                    self.specs, self.importing, self.trusted = dict(value), None, True
                case Kind.SUSPECT:
                    self.suspects, self.trusted = tuple(value), not value
                case Kind.BEGIN:
                    self.display.begin(*value)
                case Kind.ADVANCE:
                    self.display.advance(value)
                case Kind.SAY:
                    self.display.say(value)
                case Kind.DONE:
                    self.outcome = Done(self.specs, tuple(map(Path, value)))
                case Kind.BLAMED:
                    self.suspects = (value[0],)
                    self.outcome = self._failure("crashed", value[1])
                case Kind.MISUSE:
                    raise UserError(value)
                case Kind.FAILED:
                    raise SweepFailed(value)

    def _flooded(self) -> Failure | None:
        if self.reader.foreign <= _FOREIGN_BYTES:
            return None
        return self._failure(
            "crashed",
            f"Something wrote {self.reader.foreign >> 20} MiB into the pipe through which the "
            "process reports, a file descriptor that an optimizer did not open\n"
            f"{self._last_lines()}",
        )

    def _exceeded_memory(self) -> Failure | None:
        limit = self.limits.memory_gib
        if not limit or (used := worker_process.memory_gib(self.worker.pid)) <= limit:
            return None
        return self._failure(
            "crashed",
            f"The process took {used:.1f} GiB of memory, more than --memory_gib={limit:g}",
        )

    def _stalled(self, pipes: selectors.BaseSelector) -> Failure | None:
        limit, silent = self.limits.stall_seconds, self.silence.seconds()
        if self.trusted or silent <= limit:
            return None
        self.worker.send_signal(signal.SIGABRT)  # faulthandler then prints where it hangs
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while self.worker.poll() is None and time.monotonic() < deadline:
            _read(pipes, 0.1)
        _read(pipes, 0.0)
        return self._failure(
            "timeout",
            f"No progress for {limit:g} s (--stall_seconds)\n"
            "The likeliest cause on CPU is a batched LAPACK call (eigh, qr, svd or cholesky of a "
            "stack), which deadlocks when two run at once: use jax.lax.map over single matrices."
            f"\n{self._last_lines()}",
        )

    def _failure(self, status: Literal["crashed", "timeout"], detail: str) -> Failure:
        return Failure(Fault(status, detail.rstrip()), self.suspects, self.specs, self.importing)

    def _last_lines(self) -> str:
        return self.printed.last_lines()


def _read(pipes: selectors.BaseSelector, seconds: float) -> None:
    """Waits for the pipes, up to `seconds`, and passes on what has arrived, within bounds."""
    for key, _ in pipes.select(seconds):
        with suppress(BlockingIOError):
            if content := os.read(key.fd, _READ_BYTES):
                key.data(content)
            else:
                pipes.unregister(key.fd)

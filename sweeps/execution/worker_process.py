"""The worker as a process: how it starts, stops and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from distill_bench.errors import SweepFailed
from sweeps import cli

# What Python runs: -u prints at once what comes before a crash, -P hides the current folder.
COMMAND = ("-u", "-P", "-m", "sweeps.execution.worker")


def start() -> tuple[int, subprocess.Popen[bytes]]:
    """Starts a worker; returns the descriptor where its messages will arrive, and the process.

    Raises:
      UserError: if XLA_FLAGS asks for fast math or names a file.
      SweepFailed: if the system starts no more processes.
    """
    environment = cli.clean_environment()
    read, write = os.pipe()
    try:
        worker = subprocess.Popen(
            [sys.executable, *COMMAND, str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[write],
            env=environment,
            # A session of its own: what it starts can be ended with it, and no key reaches it.
            start_new_session=True,
        )
    except OSError as error:
        os.close(read)
        raise SweepFailed(f"The process that trains cannot be started: {error}") from None
    finally:
        os.close(write)
    return read, worker


def kill(worker: subprocess.Popen[bytes]) -> None:
    """Ends the worker and what it has started in its session."""
    with suppress(ProcessLookupError, PermissionError):  # of a group without a living process
        os.killpg(worker.pid, signal.SIGKILL)


@contextmanager
def stopped_together(worker: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within this context, Ctrl-Z stops the worker too, and both go on together. Only the main
    thread can arrange that; in another one, nothing happens."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGSTOP)
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)  # this process stops here
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGCONT)
        signal.signal(signal.SIGTSTP, stop)

    before = signal.getsignal(signal.SIGTSTP)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def describe_end(exit_code: int) -> str:
    if exit_code >= 0:
        return f"The process ended by itself with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    # The system ends a process like this when memory runs out.
    hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"The process was ended by {name}{hint}"


def memory_gib(pid: int) -> float:
    """Resident memory in GiB; 0 if /proc does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (OSError, ValueError, IndexError):
        return 0.0

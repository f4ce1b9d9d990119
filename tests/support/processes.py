"""Other processes, through /proc: which there are, and what they are doing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def marked(variable: str, value: str) -> list[int]:
    """Ids of the living processes that were started with this environment variable."""
    mark = f"{variable}={value}".encode()
    return [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdecimal() and mark in _read(folder / "environ").split(b"\0")
    ]


def children(parent: int) -> list[int]:
    """Ids of the processes that `parent` started and that have not ended."""
    return [int(pid) for pid in _read(Path(f"/proc/{parent}/task/{parent}/children")).split()]


def wait_until(
    condition: Callable[[], object], seconds: float = 300, what: str = "the condition is not met"
) -> None:
    """Waits until the condition is true; `seconds` is a limit, not a pause."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile, or is not ours
        return b""


def state(pid: int) -> str:
    """The letter of the process's state, such as "T" if it is stopped; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """Whether the process lives: not one that has ended and waits to be collected."""
    return state(pid) not in ("", "Z")

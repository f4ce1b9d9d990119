"""Finds processes through /proc, by a variable in their environment and by their parent."""

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


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition became true within the time, which is a limit, not a pause."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile, or is not ours
        return b""

"""Sweeps: the one place where the task and the optimizers meet.

from sweeps import compare
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.interface import Results, compare

__all__ = ["Results", "compare"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # on first use, so that the commands start fast
        from sweeps import interface

        return getattr(interface, name)
    raise AttributeError(f"module 'sweeps' has no attribute {name!r}")

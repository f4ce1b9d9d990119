"""Where Python looks for modules: in the user's folder last.

A file there, such as jax.py or optimizers.py, then cannot hide a module that this project needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the folder of the packages


def user_folder_last() -> None:
    """Moves the current folder to the end of sys.path. Paths become absolute, because the code of
    an optimizer may change the current folder."""
    here = os.getcwd()
    others = _without(here, sys.path)
    sys.path[:] = others if os.path.samefile(here, ROOT) else [*others, here]


def for_worker() -> str:
    """PYTHONPATH for a process that runs this project: its folder, then the user's PYTHONPATH
    without the current folder."""
    typed = os.environ.get("PYTHONPATH")
    given = typed.split(os.pathsep) if typed else []
    return os.pathsep.join(dict.fromkeys([ROOT, *_without(os.getcwd(), given)]))


def _without(folder: str, paths: Iterable[str]) -> list[str]:
    """The paths, absolute, without `folder` unless it is ROOT."""
    hidden = {os.path.realpath(folder)} - {os.path.realpath(ROOT)}
    # What does not exist may be no path at all, but the mark of an import hook.
    found = [os.path.abspath(path) if os.path.exists(path or ".") else path for path in paths]
    return [path for path in found if os.path.realpath(path) not in hidden]

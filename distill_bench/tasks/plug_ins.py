"""Tasks from other packages, as entry points of the group "distill_bench.tasks" or as module:NAME.

    [project.entry-points."distill_bench.tasks"]
    cells = "my_package.tasks:CELLS"

CELLS is a Task named "cells", or a function without arguments that returns it. After
`pip install my_package`, `--task=cells` works everywhere and the leaderboard counts the task.
`--task=my_package.tasks:CELLS` needs no entry point.
"""

from __future__ import annotations

import dataclasses
import importlib
from importlib import metadata

from distill_bench.errors import UserError
from distill_bench.tasks.task import Task

ENTRY_POINTS = "distill_bench.tasks"


def offered() -> dict[str, str]:
    """Returns the tasks that installed packages offer: name -> "module:NAME". Imports none."""
    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}


def load(name: str) -> Task:
    """The task that an entry point offers as `name`.

    Raises:
      UserError: if the entry point does not lead to a task of this name.
      KeyError: if no entry point has this name.
    """
    spec = offered()[name]
    try:
        task = _import(spec)
    except UserError as error:
        raise UserError(
            f"Cannot load task {name!r}, which an installed package offers: {error}\n"
            "Repair or uninstall that package."
        ) from None
    if task.name != name:
        raise UserError(
            f"The entry point {name!r} leads to {spec}, a task named {task.name!r}. "
            "Give both the same name."
        )
    return task


def load_from_module(spec: str) -> Task:
    """The task at `spec`, "module:NAME". It is named `spec`, so that every process can find it.

    Raises:
      UserError: if there is no such module, or NAME in it is not a task.
    """
    try:
        return dataclasses.replace(_import(spec), name=spec)
    except UserError as error:
        raise UserError(f"Cannot load --task={spec}: {error}") from None


def _import(spec: str) -> Task:
    module_name, _, attribute = spec.partition(":")
    if not all(name.isidentifier() for name in (*module_name.split("."), attribute)):
        raise UserError(f"{spec!r} is not of the form module:NAME, such as my_package.tasks:CELLS.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module exists, and imports one that does not
        raise UserError(
            f"there is no module {error.name!r}. Install it, or add its folder to PYTHONPATH."
        ) from None
    if not hasattr(module, attribute):
        tasks = sorted(name for name, value in vars(module).items() if isinstance(value, Task))
        raise UserError(
            f"{module_name} has no attribute {attribute!r}. Tasks in it: {', '.join(tasks) or '-'}."
        )
    found = getattr(module, attribute)
    if callable(found):
        found = found()
    if not isinstance(found, Task):
        raise UserError(
            f"{attribute} in {module_name} is of type {type(found).__name__}; it must be a Task, "
            "or a function without arguments that returns one."
        )
    return found

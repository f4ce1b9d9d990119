"""Optimizers that exist as Python objects: what --opt would take for each of them.

The process that trains is another one and must find them in a file. One that a script or a
notebook defines is written out: the statements that it needs, see excerpt.py.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from distill_bench.errors import UserError
from distill_bench.files import write_atomically
from optimizers.contract import registry
from optimizers.contract.api import Optimizer
from sweeps.planning.excerpt import excerpt

FOLDER = "from_python"  # in the folder of the results; holds what is written out


def spec_of(optimizer: str | Optimizer, outdir: Path) -> str:
    """The optimizer as --opt takes it. One of the main program is written to a file in `outdir`.

    Args:
      optimizer: a text, which stays as it is, or what `@optimizer` returned.
      outdir: folder of the results.

    Raises:
      UserError: if it is neither, or not defined at the top level of its file.
    """
    if isinstance(optimizer, str):
        return optimizer
    if not isinstance(optimizer, Optimizer):
        raise UserError(
            f"Expected the name of an optimizer or a function decorated with @optimizer, got "
            f"{type(optimizer).__name__}."
        )
    module = sys.modules[optimizer.make.__module__]
    name = _name_in(module, optimizer)
    if module.__name__ == "__main__":
        return _written_out(module, name, outdir)
    if registry.file_of(optimizer.name) and module.__name__.startswith("optimizers."):
        return optimizer.name
    if "." in module.__name__ or not module.__file__:
        return f"{module.__name__}:{name}"
    return f"{module.__file__}:{name}"


def _name_in(module: ModuleType, optimizer: Optimizer) -> str:
    names = [name for name, value in vars(module).items() if value is optimizer]
    if not names:
        raise UserError(
            f"The optimizer {optimizer.name!r} is not at the top level of {module.__name__}, so "
            "the process that trains cannot find it: define it outside any function, or in a file "
            "of its own and pass its path."
        )
    return optimizer.name if optimizer.name in names else names[0]


def _written_out(module: ModuleType, name: str, outdir: Path) -> str:
    path = outdir / FOLDER / f"{name}.py"
    try:
        text = excerpt(_source(module), name)
    except (LookupError, SyntaxError):
        raise UserError(
            f"The text that defines {name!r} was not found: put it into a file, such as {name}.py, "
            f"and pass './{name}.py'."
        ) from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from None
    return f"{path}:{name}"


def _source(module: ModuleType) -> str:
    """The text of the main program: all cells of a notebook that have run, or the script's.

    Raises:
      LookupError: if there is none, as in Python's own prompt.
    """
    cells = _cells(vars(module))
    if cells is not None:
        return "\n".join(cell for cell in cells if _is_python(cell))
    path = getattr(module, "__file__", None)
    if not path or not Path(path).is_file():
        raise LookupError("no file")
    return Path(path).read_text(encoding="utf-8")


def _cells(namespace: Mapping[str, Any]) -> list[str] | None:
    """What IPython has executed; None outside it."""
    cells = namespace.get("In")
    return cells if "get_ipython" in namespace and isinstance(cells, list) else None


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True

"""What a Python source text does, as text: the same for texts that differ in layout alone.

When in doubt, keep: a digest that changes needlessly costs a rerun, one that stays the same hides a
change.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable

from optimizers.contract.stripping import Stripped
from optimizers.contract.syntax import without_type_checking
from optimizers.contract.tree_text import written


@functools.lru_cache(256)  # entries carry the same files
def canonical(text: str) -> str:
    """The code of a file of this package, without its words (`stripping.py`).

    Raises:
      SyntaxError: if `text` is not Python.
      ValueError: if it holds null bytes or is nested too deeply to be read.
    """

    def tree() -> ast.AST:
        module = without_type_checking(ast.parse(text))
        return Stripped(module).visit(module)

    return _shallow_enough(lambda: "".join(written(tree())))


@functools.lru_cache(256)
def parsed(text: str) -> str:
    """The parsed text, without what only text can hold (comments, layout) and without docstrings.

    Raises:
      SyntaxError: if `text` is not Python.
      ValueError: if it holds null bytes or is nested too deeply to be read.
    """
    return _shallow_enough(lambda: "".join(written(_WithoutDocstrings().visit(ast.parse(text)))))


class _WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        value = node.value
        words = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return None if words else self.generic_visit(node)


def _shallow_enough(write: Callable[[], str]) -> str:
    try:
        return write()
    except (RecursionError, MemoryError):
        raise ValueError("the source is nested too deeply to be read") from None

"""The part of a script or notebook that one name needs, as a file of its own.

An optimizer that is defined in a script or in a notebook's cells exists only in that process. The
process that trains, the store and the leaderboard need a file: the statements that define the
optimizer, and those that define what they use. Nothing is executed to find them.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_BLOCKS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_ALWAYS_BIND = (*_BLOCKS, ast.Import, ast.ImportFrom, ast.Assign)


@dataclass
class _Statement:
    """A statement at the top level.

    Attributes:
      text: its lines, with decorators.
      binds: the names that it defines.
      changes: the names of objects in which it sets an item or attribute.
      reads: the global names that it reads when it is executed: in decorators, defaults and so on.
      calls: the global names that its functions read when they are called.
      future: whether it is an import from __future__, which every excerpt needs.
      block: whether it is a function or class.
    """

    text: str
    binds: set[str] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)
    reads: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)
    future: bool = False
    block: bool = False


def excerpt(source: str, name: str) -> str:
    """The statements that `name` needs, in their order: a Python file that defines it.

    A name that is defined several times, as by a cell that ran again, counts as it was last
    defined; an earlier definition stays where the later one uses it.

    Raises:
      LookupError: if no statement at the top level defines `name`.
      SyntaxError: if the source is not Python.
    """
    statements = list(_statements(source))
    if not any(name in one.binds for one in statements):
        raise LookupError(name)
    taken: set[int] = {i for i, one in enumerate(statements) if one.future}
    end = len(statements)
    wanted = [(name, end)]  # names still to be defined, each by a statement before this place
    while wanted:
        for i in _definitions(statements, *wanted.pop()):
            if i not in taken:
                taken.add(i)
                wanted += [(read, i) for read in statements[i].reads]
                wanted += [(read, end) for read in statements[i].calls]
    # In a notebook, imports from __future__ may come late; in a file they may not.
    order = sorted(taken, key=lambda i: (not statements[i].future, i))
    return _file(statements[i] for i in order)


def _file(statements: Iterable[_Statement]) -> str:
    """The statements' lines, with empty ones around functions and classes."""
    text, apart = "", False
    for one in statements:
        if text and (apart or one.block):
            text += "\n\n"
        text += f"{one.text}\n"
        apart = one.block
    return text


def _definitions(statements: list[_Statement], name: str, before: int) -> Iterator[int]:
    """The last statement before this place that defines the name, and those that change its value
    afterwards."""
    last = max((i for i in range(before) if name in statements[i].binds), default=None)
    if last is None:
        return
    yield last
    yield from (i for i in range(last + 1, before) if name in statements[i].changes)


def _statements(source: str) -> Iterator[_Statement]:
    lines = source.splitlines()
    for node in ast.parse(source).body:
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(one.lineno for one in decorators)])
        text = "\n".join(lines[first - 1 : node.end_lineno])
        if ast.unparse(ast.parse(text)) != ast.unparse(node):
            text = ast.unparse(node)  # several statements share a line
        binds = set(_bound(node))
        reads, calls = _globals_of(symtable.symtable(text, "excerpt", "exec"))
        if not isinstance(node, _ALWAYS_BIND):
            reads |= binds  # an earlier value may stay
        yield _Statement(
            text,
            binds,
            set(_changed(node)),
            reads,
            calls,
            isinstance(node, ast.ImportFrom) and node.module == "__future__",
            isinstance(node, _BLOCKS),
        )


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a statement at the top level binds, in blocks such as `if` and `try` too."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            for one in names:
                yield one.asname or one.name.partition(".")[0]
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            return
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _bound(child)


def _changed(node: ast.AST) -> Iterator[str]:
    """Names of objects whose items or attributes a statement at the top level sets."""
    if isinstance(node, (*_BLOCKS, ast.Lambda)):
        return
    if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
        base: ast.expr = node
        while isinstance(base, ast.Subscript | ast.Attribute):
            base = base.value
        if isinstance(base, ast.Name):
            yield base.id
    for child in ast.iter_child_nodes(node):
        yield from _changed(child)


def _globals_of(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """Global names that this scope reads when it is executed, and those that its functions read."""
    top = table.get_type() == "module"
    reads = {
        one.get_name()
        for one in table.get_symbols()
        if one.is_referenced() and (top or one.is_global())
    }
    calls: set[str] = set()
    for child in table.get_children():
        own, inner = _globals_of(child)
        calls |= inner
        if child.get_type() == "function":
            calls |= own
        else:  # the body of a class, and annotations
            reads |= own
    return reads, calls

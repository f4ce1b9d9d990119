"""Recognizes an optimizer's code under other names and in another layout."""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from optimizers.contract.stripping import Stripped
from optimizers.contract.syntax import (
    bindings,
    dotted,
    imported_names,
    is_optimizer,
    without_type_checking,
)
from optimizers.contract.tree_text import written
from optimizers.contract.used_files import exports

_Definition = tuple[str, str]  # (module, name)


def likeness(sources: Mapping[str, str], optimizer: str) -> str | None:
    """A digest of the optimizer's function and all that it uses, whatever names its author chose.

    Names are numbered in the order in which they are met, imports are resolved, and the carried
    files count as one program, of which only what the function uses is looked at. So the digest is
    the same after renaming, splitting or merging files, and copying one rule out of a family's
    file. Search domains are left out. None if no file declares the optimizer.

    Raises:
      SyntaxError: if a text is not Python.
      ValueError: if one holds null bytes or is nested too deeply.
    """
    try:
        modules = {
            ".".join(PurePosixPath(name).with_suffix("").parts).removesuffix(".__init__"): _of(text)
            for name, text in sources.items()
        }
        for name, module in modules.items():
            node = module.definitions.get(optimizer)
            if node is not None and is_optimizer(node):
                return _Program(modules).digest((name, optimizer))
    except (RecursionError, MemoryError):
        raise ValueError("the source is nested too deeply to be read") from None
    return None


@functools.lru_cache(256)  # entries carry the same files
def _of(text: str) -> _Module:
    return _Module(without_type_checking(ast.parse(text)))


@dataclass(frozen=True)
class _Module:
    tree: ast.Module

    @functools.cached_property
    def stripped(self) -> ast.Module:
        return Stripped(self.tree).visit(self.tree)

    @functools.cached_property
    def imported(self) -> dict[str, str]:
        return imported_names(self.tree)

    @functools.cached_property
    def bound(self) -> set[str]:
        return {name for node in ast.walk(self.tree) for name, full in bindings(node) if not full}

    @functools.cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """Name -> the last statement at the top of the file that binds it."""
        return {
            name: statement
            for statement in self.stripped.body
            if not isinstance(statement, ast.Import | ast.ImportFrom)
            for name in _bound_at_top(statement)
        }


def _bound_at_top(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    return {name for node in ast.walk(statement) for name, _ in bindings(node)}


class _Program:
    """Numbers definitions and names in the order in which they are met."""

    def __init__(self, modules: Mapping[str, _Module]):
        self.modules = modules
        self._own = set().union(*(module.bound for module in modules.values()))
        self._numbers: dict[_Definition | str, int] = {}
        self._pending: list[_Definition] = []

    def digest(self, start: _Definition) -> str:
        whole = hashlib.sha256()
        self.number(start)
        for module, name in self._pending:  # grows while it is read
            node = self.modules[module].definitions[name]
            renamed = _Renamed(self, module).visit(copy.deepcopy(node))
            whole.update("".join(written(renamed)).encode())
        return whole.hexdigest()

    def number(self, what: _Definition | str) -> str:
        if what not in self._numbers:
            self._numbers[what] = len(self._numbers)
            if isinstance(what, tuple):
                self._pending.append(what)
        return f"<{self._numbers[what]}>"

    def stands_for(self, module: str, name: str) -> str:
        """What a name in a module is called here."""
        one = self.modules[module]
        if name in one.imported:
            return self.of_import(one.imported[name])
        if name in one.definitions:
            return self.number((module, name))
        return self.number(name) if name in one.bound else name

    def of_import(self, full: str) -> str:
        package, _, name = full.rpartition(".")
        module = exports().get(name, package) if package == "optimizers" else package
        if module.startswith("."):  # relative: the carried files are one package
            tail = "." + module.strip(".")
            module = next((one for one in self.modules if f".{one}".endswith(tail)), module)
        known = self.modules.get(module)
        if known and name in known.definitions:
            return self.number((module, name))
        return f"{module}.{name}"

    def of_attribute(self, name: str) -> str:
        return self.number(name) if name in self._own else name


class _Renamed(ast.NodeTransformer):
    """A definition with numbers in place of the names that its author chose."""

    def __init__(self, program: _Program, module: str):
        self._program, self._module = program, module
        self._imported = program.modules[module].imported

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._program.stands_for(self._module, node.id))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if full := dotted(node, self._imported):
            return ast.Name(self._program.of_import(full))
        value = self.visit(node.value)
        return ast.Attribute(value, self._program.of_attribute(node.attr))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = self.visit(node.func)
        outside = isinstance(called, ast.Name) and not called.id.startswith("<")
        arguments = [self.visit(one) for one in node.args]
        keywords = [
            ast.keyword(
                one.arg if outside or one.arg is None else self._program.of_attribute(one.arg),
                self.visit(one.value),
            )
            for one in node.keywords
        ]
        return ast.Call(called, arguments, keywords)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._program.number(node.arg))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._program.stands_for(self._module, node.name)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._program.stands_for(self._module, node.name)
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        return None  # what it binds is resolved where it is used

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

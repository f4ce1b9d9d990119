"""Recognizes an optimizer's code under other names and in another layout."""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
from collections.abc import Hashable, Mapping
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
    def calls(self) -> list[ast.Call]:
        """Those with keywords."""
        nodes = ast.walk(self.stripped)
        return [node for node in nodes if isinstance(node, ast.Call) and node.keywords]

    @functools.cached_property
    def fields(self) -> set[str]:
        """Names of its classes' fields."""
        return {name for node in ast.walk(self.stripped) for name in _fields(node)}

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
        self.keywords = {
            keyword.arg
            for one in modules.values()
            for node in one.calls
            if self._is_ours(node.func, one)
            for keyword in node.keywords
        }
        self.fields = self.keywords.union(*(one.fields for one in modules.values()))
        self._numbers: dict[Hashable, int] = {}
        self._pending: list[_Definition] = []

    def digest(self, start: _Definition) -> str:
        whole = hashlib.sha256()
        self.of_definition(start)
        for module, name in self._pending:  # grows while it is read
            node = copy.deepcopy(self.modules[module].definitions[name])
            whole.update("".join(written(_Renamed(self, module).visit(node))).encode())
        return whole.hexdigest()

    def number(self, what: Hashable) -> str:
        return f"<{self._numbers.setdefault(what, len(self._numbers))}>"

    def of_definition(self, what: _Definition) -> str:
        if what not in self._numbers:
            self._pending.append(what)
        return self.number(what)

    def of_import(self, full: str) -> str:
        """What an imported name stands for: a definition in the carried files, or its own name."""
        module, name = self._place(full)
        if module in self.modules and name in self.modules[module].definitions:
            return self.of_definition((module, name))
        return f"{module}.{name}"

    def _place(self, full: str) -> _Definition:
        package, _, name = full.rpartition(".")
        module = exports().get(name, package) if package == "optimizers" else package
        if module.startswith("."):  # relative: the carried files are one package
            tail = "." + module.strip(".")
            module = next((one for one in self.modules if f".{one}".endswith(tail)), module)
        return module, name

    def _is_ours(self, called: ast.expr, module: _Module) -> bool:
        full = dotted(called, module.imported)
        return not full or self._place(full)[0] in self.modules


class _Renamed(ast.NodeTransformer):
    """A definition with numbers in place of the names that its author chose.

    Variables are numbered for each function, attributes and keywords for the whole program.
    """

    def __init__(self, program: _Program, module: str):
        self._program, self._name = program, module
        self._module = program.modules[module]
        self._scopes: list[tuple[object, set[str]]] = []

    def _variable(self, name: str) -> str:
        for scope, bound in reversed(self._scopes):
            if name in bound:
                return self._program.number((scope, name))
        if name in self._module.imported:
            return self._program.of_import(self._module.imported[name])
        if name in self._module.definitions:
            return self._program.of_definition((self._name, name))
        return name

    def _attribute(self, name: str) -> str:
        return self._program.number(name) if name in self._program.fields else name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._variable(node.id))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if full := dotted(node, self._module.imported):
            return ast.Name(self._program.of_import(full))
        return ast.Attribute(self.visit(node.value), self._attribute(node.attr))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = self.visit(node.func)
        ours = not isinstance(called, ast.Name) or called.id.startswith("<")
        for keyword in node.keywords:
            if keyword.arg and ours:
                keyword.arg = self._attribute(keyword.arg)
        arguments = [self.visit(one) for one in node.args]
        return ast.Call(called, arguments, [self.visit(one) for one in node.keywords])

    def visit_arg(self, node: ast.arg) -> ast.AST:
        keyword = self._attribute(node.arg) if node.arg in self._program.keywords else ""
        return ast.arg(self._variable(node.arg) + keyword)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._variable(node.name)
        return self._inside(node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return self._inside(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._variable(node.name)
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if isinstance(node.target, ast.Name) and not self._scopes:  # a field of a class
            node.target.id = self._attribute(node.target.id)
            return node
        return self.generic_visit(node)

    def _inside(self, node: ast.FunctionDef | ast.Lambda) -> ast.AST:
        self._scopes.append((self._program.number(object()), _variables(node)))
        try:
            return self.generic_visit(node)
        finally:
            self._scopes.pop()

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        return None  # what it binds is resolved where it is used

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None


def _fields(node: ast.AST) -> set[str]:
    """Names of a class's fields."""
    body = node.body if isinstance(node, ast.ClassDef) else []
    assigned = [one.target for one in body if isinstance(one, ast.AnnAssign)]
    return {target.id for target in assigned if isinstance(target, ast.Name)}


def _variables(function: ast.FunctionDef | ast.Lambda) -> set[str]:
    """Names that a function binds itself, not those of functions inside it."""
    found, pending = set(), list(ast.iter_child_nodes(function))
    while pending:
        node = pending.pop()
        found |= {name for name, full in bindings(node) if not full}
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            pending += ast.iter_child_nodes(node)
    return found

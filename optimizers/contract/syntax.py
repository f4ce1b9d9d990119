"""What the names in a parsed source text stand for."""

from __future__ import annotations

import ast

DECORATOR = "optimizer"


def is_optimizer(node: ast.stmt) -> bool:
    """Whether `node` is a function that `@optimizer` or `@optimizer(...)` decorates."""
    return isinstance(node, ast.FunctionDef) and any(map(_is_declaration, node.decorator_list))


def _is_declaration(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == DECORATOR


def declared_in(text: str) -> list[str]:
    """Names of the optimizers that a source text declares, found without running it."""
    return [str(getattr(node, "name", "")) for node in ast.parse(text).body if is_optimizer(node)]


def summaries_in(text: str) -> dict[str, str]:
    """The first line of the docstring of each optimizer that a source text declares."""
    return {
        node.name: (ast.get_docstring(node) or "").partition("\n")[0]
        for node in ast.parse(text).body
        if is_optimizer(node) and isinstance(node, ast.FunctionDef)
    }


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted name, of the names that one import binds and nothing else does."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        for local, full in bindings(node):
            found.setdefault(local, set()).add(full)
    return {name: full for name, (full, *more) in found.items() if full and not more}


def bindings(node: ast.AST) -> list[tuple[str, str]]:
    """(name, dotted name) of each name that a node binds; the second is "" if not by an import."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [binding(node, alias) for alias in node.names]
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [(node.id, "")]
    if isinstance(node, ast.alias):
        return []  # its import has been asked
    fields = ("arg",) if isinstance(node, ast.arg) else ("name", "rest")
    values = [getattr(node, field, None) for field in fields]
    return [(value, "") for value in values if isinstance(value, str)]


def binding(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> tuple[str, str]:
    """(local name, dotted name) that an import binds."""
    if isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        return alias.asname or alias.name, f"{module}.{alias.name}"
    if alias.asname:
        return alias.asname, alias.name
    return alias.name.partition(".")[0], alias.name.partition(".")[0]


def dotted(node: ast.expr, imported: dict[str, str]) -> str:
    """The dotted name that an expression stands for, through the imports; "" if unknown."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, "")
    if isinstance(node, ast.Attribute) and (base := dotted(node.value, imported)):
        return f"{base}.{node.attr}"
    return ""


def without_type_checking(tree: ast.Module) -> ast.Module:
    """The tree without the bodies of `if TYPE_CHECKING:`, which never run."""
    return _WithoutTypeChecking(imported_names(tree)).visit(tree)


class _WithoutTypeChecking(ast.NodeTransformer):
    def __init__(self, imported: dict[str, str]):
        self._imported = imported

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        name = dotted(node.test, self._imported)
        return node.orelse if name == "typing.TYPE_CHECKING" else node

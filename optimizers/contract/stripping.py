"""Drops the words of this package's own code: what reviewed code does cannot depend on them.

Left out are docstrings, error messages, type annotations, unused imports from typing modules, and
the order within a run of imports. Each is kept wherever the program might depend on it: see
`_Readers` and the comments below. When in doubt, keep.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from optimizers.contract.syntax import binding, bindings, dotted, imported_names, is_optimizer
from optimizers.contract.tree_text import written

_DECLARING = frozenset({"optimizers.optimizer", "optimizers.contract.api.optimizer"})

# Modules that hold names for type annotations and do nothing when they are imported.
_TYPING = frozenset(
    {"typing", "typing_extensions", "collections.abc", "jax.typing", "numpy.typing"}
)

# A file that mentions one of these may read its own docstrings, annotations or text.
_READS_ITSELF = frozenset(
    {
        "__annotate__",
        "__annotations__",
        "__doc__",
        "__file__",
        "annotation",
        "get_annotations",
        "get_type_hints",
        "getdoc",
        "getsource",
        "getsourcelines",
        "singledispatch",
        "singledispatchmethod",
    }
)

# Decorators and base classes that do not care which type a field has, only that it has one.
_PLAIN_DECORATORS = frozenset({"dataclasses.dataclass", "flax.struct.dataclass"})
_PLAIN_BASES = frozenset({"typing.NamedTuple", "typing.Protocol", "typing.TypedDict"})

# Annotations of fields that change what `dataclass` makes of the field.
_MEANINGFUL = ("ClassVar", "InitVar", "KW_ONLY")


class _Readers:
    """What a program reads of itself, and which must therefore stay.

    itself: it may read its docstrings, annotations or text, so that all of them stay.
    messages: it catches an exception under a name and may read the message.
    """

    def __init__(self, tree: ast.Module):
        nodes = list(ast.walk(tree))
        names = {name for node in nodes for name in _mentioned(node)}
        decorators = {
            id(called.func if isinstance(called, ast.Call) else called)
            for node in nodes
            for called in getattr(node, "decorator_list", [])
        }
        imports = dict(
            pair
            for node in nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for pair in bindings(node)
        )
        # `optimizer(function)` reads the annotations of a function that it does not decorate.
        called = any(
            isinstance(node, ast.Name | ast.Attribute)
            and id(node) not in decorators
            and dotted(node, imports) in _DECLARING
            for node in nodes
        )
        self.itself = called or not names.isdisjoint(_READS_ITSELF)
        self.messages = self.itself or any(
            isinstance(node, ast.ExceptHandler) and node.name for node in nodes
        )


def _mentioned(node: ast.AST) -> Iterator[str]:
    """Names in a node, however they are used; a string may be given to `getattr`."""
    for field in ("id", "attr", "name", "arg"):
        if isinstance(name := getattr(node, field, None), str):
            yield name
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


class Stripped(ast.NodeTransformer):
    """Drops what the program's numbers cannot depend on."""

    def __init__(self, tree: ast.Module):
        self._imported = imported_names(tree)
        self._reads = _Readers(tree)
        self._fields: str | None = None  # "plain" or "typed" in the body of a class

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self.generic_visit(node)
        # After the annotations are gone: what only they used is not used any more.
        used = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        return _Imports(used).visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        value = node.value
        words = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return None if words and not self._reads.itself else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        # Another decorator may read the annotations, as functools.singledispatch does.
        declares = len(node.decorator_list) == 1 and is_optimizer(node)
        if (declares or not node.decorator_list) and not self._reads.itself:
            node.returns = None
            arguments = node.args
            named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            for argument in named:
                # A Schedule arrives as a function, a float as a number; the domain is part of the
                # study's identity anyway.
                argument.annotation = self._without_domain(argument) if declares else None
            for argument in (arguments.vararg, arguments.kwarg):
                if argument:
                    argument.annotation = None
        return self._inside(None, node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self.visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        decorators = {
            dotted(it.func if isinstance(it, ast.Call) else it, self._imported)
            for it in node.decorator_list
        }
        bases = {dotted(base, self._imported) for base in node.bases}
        plain = decorators <= _PLAIN_DECORATORS and bases <= _PLAIN_BASES and not node.keywords
        return self._inside("plain" if plain else "typed", node)

    def _inside(self, fields: str | None, node: ast.AST) -> ast.AST:
        before, self._fields = self._fields, fields
        try:
            return self.generic_visit(node)
        finally:
            self._fields = before

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        keep = self._reads.itself or self._fields == "typed"
        if not keep and self._fields == "plain":
            keep = any(word in ast.unparse(node.annotation) for word in _MEANINGFUL)
        if keep:
            return self.generic_visit(node)
        if self._fields is None and node.value is not None:
            return self.generic_visit(ast.Assign([node.target], node.value))
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call) and not self._reads.messages:
            node.exc.args = [it for it in node.exc.args if not _is_message(it)]
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        if node.msg is not None and _is_message(node.msg) and not self._reads.messages:
            node.msg = None
        return self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> ast.AST:
        """`del (a, b)` is `del a, b`: formatters drop the parentheses."""
        node.targets = [
            target
            for it in node.targets
            for target in (it.elts if isinstance(it, ast.Tuple) else [it])
        ]
        return self.generic_visit(node)

    def _without_domain(self, argument: ast.arg) -> ast.expr | None:
        """X of a hyperparameter's annotation `Annotated[X, domain]`."""
        hint = argument.annotation
        annotated = ("typing.Annotated", "typing_extensions.Annotated")
        if (
            isinstance(hint, ast.Subscript)
            and isinstance(hint.slice, ast.Tuple)
            and dotted(hint.value, self._imported) in annotated
        ):
            return hint.slice.elts[0]
        return hint


def _is_message(node: ast.expr) -> bool:
    """Whether an expression only makes up words: strings, f-strings, and these added together."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_message(node.left) and _is_message(node.right)
    if isinstance(node, ast.JoinedStr):
        acts = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
        return not any(isinstance(part, acts) for part in ast.walk(node))
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


class _Imports(ast.NodeTransformer):
    """One import statement for each name, sorted within a run of imports."""

    def __init__(self, used: set[str]):
        self._used = used

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, self._tidied(statements))
        return node

    def _tidied(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        tidied: list[ast.stmt] = []
        run: list[tuple[str, ast.stmt]] = []  # (what it binds, the import)
        for statement in [*statements, None]:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                run += self._split(statement)
                continue
            names = [name for name, _ in run]
            if len(set(names)) == len(names):  # else the last one wins: the order counts
                run.sort(key=lambda it: "".join(written(it[1])))
            tidied += [one for _, one in run]
            run = []
            if statement is not None:
                tidied.append(statement)
        return tidied

    def _split(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, ast.stmt]]:
        for alias in node.names:
            local, full = binding(node, alias)
            module = full if isinstance(node, ast.Import) else full.rpartition(".")[0]
            unused = module in _TYPING and local not in self._used and local != "*"
            if module == "__future__" or unused:
                continue
            # `import a.b` and `import a.c` both bind a, in any order.
            name = alias.asname or alias.name if isinstance(node, ast.Import) else local
            if isinstance(node, ast.Import):
                yield name, ast.Import([alias])
            else:
                yield name, ast.ImportFrom(node.module, [alias], node.level)

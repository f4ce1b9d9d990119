"""What a Python source text does, as text: the same for files that differ in words or layout.

Left out are comments, formatting, docstrings, error messages, type annotations, `if TYPE_CHECKING`
blocks, unused imports from typing modules, and the order within a run of imports. Each is kept
wherever the program might depend on it: see `_Readers` and the comments below. When in doubt, keep:
a digest that changes needlessly costs a rerun, one that stays the same hides a change.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

DECORATOR = "optimizer"
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

# `ctx` follows from the place; `kind` is the u of u"..."; neither changes what the code does.
_IGNORED = frozenset({"ctx", "kind", "type_comment"})


def canonical(text: str) -> str:
    """The code of a Python source text, in a form that every Python from 3.11 on gives alike.

    Raises:
      SyntaxError: if `text` is not Python.
      ValueError: if it holds null bytes or is nested too deeply to be read.
    """
    try:
        tree = without_type_checking(ast.parse(text))
        return "".join(_written(_Stripped(tree).visit(tree)))
    except (RecursionError, MemoryError):
        raise ValueError("the source is nested too deeply to be read") from None


def without_type_checking(tree: ast.Module) -> ast.Module:
    """The tree without the bodies of `if TYPE_CHECKING:`, which never run."""
    return _WithoutTypeChecking(_imported_names(tree)).visit(tree)


def is_optimizer(node: ast.stmt) -> bool:
    """Whether `node` is a function that `@optimizer` or `@optimizer(...)` decorates."""
    return isinstance(node, ast.FunctionDef) and any(map(_is_declaration, node.decorator_list))


def _is_declaration(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == DECORATOR


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted name, of the names that one import binds and nothing else does."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        for local, full in _bindings(node):
            found.setdefault(local, set()).add(full)
    return {name: full for name, (full, *more) in found.items() if full and not more}


def _bindings(node: ast.AST) -> list[tuple[str, str]]:
    """(name, dotted name) of each name that a node binds; the second is "" if not by an import."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [_binding(node, alias) for alias in node.names]
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [(node.id, "")]
    if isinstance(node, ast.alias):
        return []  # its import has been asked
    fields = ("arg",) if isinstance(node, ast.arg) else ("name", "rest")
    values = [getattr(node, field, None) for field in fields]
    return [(value, "") for value in values if isinstance(value, str)]


def _binding(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> tuple[str, str]:
    """(local name, dotted name) that an import binds."""
    if isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        return alias.asname or alias.name, f"{module}.{alias.name}"
    if alias.asname:
        return alias.asname, alias.name
    return alias.name.partition(".")[0], alias.name.partition(".")[0]


def _dotted(node: ast.expr, imported: dict[str, str]) -> str:
    """The dotted name that an expression stands for, through the imports; "" if unknown."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, "")
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value, imported)):
        return f"{base}.{node.attr}"
    return ""


class _WithoutTypeChecking(ast.NodeTransformer):
    def __init__(self, imported: dict[str, str]):
        self._imported = imported

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        name = _dotted(node.test, self._imported)
        return node.orelse if name == "typing.TYPE_CHECKING" else node


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
            for pair in _bindings(node)
        )
        # `optimizer(function)` reads the annotations of a function that it does not decorate.
        called = any(
            isinstance(node, ast.Name | ast.Attribute)
            and id(node) not in decorators
            and _dotted(node, imports) in _DECLARING
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


class _Stripped(ast.NodeTransformer):
    """Drops what the program's numbers cannot depend on."""

    def __init__(self, tree: ast.Module):
        self._imported = _imported_names(tree)
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
            _dotted(it.func if isinstance(it, ast.Call) else it, self._imported)
            for it in node.decorator_list
        }
        bases = {_dotted(base, self._imported) for base in node.bases}
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
            and _dotted(hint.value, self._imported) in annotated
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
                run.sort(key=lambda it: "".join(_written(it[1])))
            tidied += [one for _, one in run]
            run = []
            if statement is not None:
                tidied.append(statement)
        return tidied

    def _split(self, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, ast.stmt]]:
        for alias in node.names:
            local, full = _binding(node, alias)
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


def _written(value: object) -> Iterator[str]:
    """The tree as text. Python's versions differ in `ast.dump`, so it is spelled out here."""
    if isinstance(value, ast.Constant):
        yield f"Constant({_literal(value.value)})"
    elif isinstance(value, ast.JoinedStr):
        yield "JoinedStr["
        for part in _string_parts(value):
            yield from _written(part)
        yield "]"
    elif isinstance(value, ast.AST):
        yield f"{type(value).__name__}("
        for field, child in sorted(ast.iter_fields(value), key=lambda it: it[0]):
            if field not in _IGNORED and child is not None and child != []:
                yield f"{field}="
                yield from _written(child)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for child in value:
            yield from _written(child)
        yield "]"
    else:
        yield f"{_literal(value)} "


def _literal(value: object) -> str:
    # ascii: which characters repr escapes depends on Python's version. hex: repr refuses long ones.
    if isinstance(value, int) and not isinstance(value, bool):
        return f"int {hex(value)}"
    return f"{type(value).__name__} {value!a}"


def _string_parts(node: ast.JoinedStr) -> list[ast.expr]:
    """Parts of an f-string; how its constants are cut depends on Python's version."""
    parts: list[ast.expr] = []
    for part in node.values:
        if not isinstance(part, ast.Constant):
            if isinstance(part, ast.FormattedValue) and part.format_spec is not None:
                spec = part.format_spec
                if isinstance(spec, ast.JoinedStr) and not _string_parts(spec):
                    part = ast.FormattedValue(part.value, part.conversion, None)
            parts.append(part)
        elif part.value and parts and isinstance(parts[-1], ast.Constant):
            parts[-1] = ast.Constant(str(parts[-1].value) + str(part.value))
        elif part.value:
            parts.append(part)
    return parts

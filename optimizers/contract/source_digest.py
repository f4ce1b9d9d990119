"""The source digest: what an optimizer's code does, whatever it is called in words or laid out like.

Results are kept under the digest of the code that made them. It covers the parsed tree of the optimizer's file and of the
files of this package that it uses. Comments, docstrings, formatting, messages of errors and type annotations are left out,
and so are the files that shape no number (`NOT_COVERED`). `SCHEDULES`, which every run follows, is always in.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent.parent

SCHEDULES = "optimizers/contract/schedules.py"
NOT_COVERED = frozenset(
    {"optimizers/__init__.py", "optimizers/contract/api.py", "optimizers/contract/domains.py"}
)
"""Files that optimizers import and that shape no number of a run. The search domains are part of a study's identity
by themselves; a change of how the harness calls an optimizer (api.py) raises the task's REVISION."""

DECORATOR = "optimizer"
_ADDED_LATER = {
    "ctx",
    "kind",
    "type_comment",
    "type_params",
}  # say nothing, or depend on Python's version


def source_files(path: Path) -> dict[str, str]:
    """The file at `path` and the files of this package that it uses, directly or not: name -> text.

    A file of this package goes by its path ("optimizers/masks.py"), another by its name ("my_opt.py").
    """
    found: dict[str, str] = {}
    pending = [path.resolve(), PACKAGE.resolve().parent / SCHEDULES]
    while pending:
        current = pending.pop()
        name = _name(current)
        if name not in found and name not in NOT_COVERED:
            found[name] = current.read_text()
            pending += _used_files(found[name])
    return dict(sorted(found.items()))


def digest(files: Mapping[str, str]) -> str:
    """sha256 of what the files do.

    Raises:
      SyntaxError: if one of them is not Python.
    """
    whole = hashlib.sha256()
    for name, text in sorted(files.items()):
        code = "".join(_canonical(_Stripped().visit(ast.parse(text)))).encode()
        whole.update(f"{name}\0{len(code)}\0".encode() + code)
    return whole.hexdigest()


def source_sha256(path: Path) -> str:
    """The digest of the file at `path` and of all that it uses."""
    return digest(source_files(path))


def declared_in(text: str) -> list[str]:
    """Names of the functions in a source text that `@optimizer` decorates, found without running it."""
    return [
        node.name
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and _is_optimizer(node)
    ]


def _is_optimizer(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    called = [it.func if isinstance(it, ast.Call) else it for it in node.decorator_list]
    return any(isinstance(it, ast.Name) and it.id == DECORATOR for it in called)


def _name(path: Path) -> str:
    package = PACKAGE.resolve()
    inside = path.is_relative_to(package)
    return path.relative_to(package.parent).as_posix() if inside else path.name


def _used_files(text: str) -> list[Path]:
    """The files of this package that a file imports, apart from imports for type annotations alone."""
    modules: set[str] = set()
    for node in ast.walk(_WithoutTypeChecking().visit(ast.parse(text))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            modules |= {
                _exports().get(alias.name, f"{PACKAGE.name}.{alias.name}") for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = (name.split(".")[1:] for name in sorted(modules) if name.startswith(f"{PACKAGE.name}."))
    candidates = (PACKAGE.resolve().joinpath(*parts).with_suffix(".py") for parts in ours)
    return [path for path in candidates if path.is_file()]


@functools.cache
def _exports() -> dict[str, str]:
    """name -> the module that `from optimizers import name` takes it from."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


class _WithoutTypeChecking(ast.NodeTransformer):
    """Drops `if TYPE_CHECKING:` blocks, which never run."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse
        return self.generic_visit(node)


class _Stripped(_WithoutTypeChecking):
    """Drops what a program's numbers cannot depend on."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        imports = [it for it in node.body if isinstance(it, ast.Import | ast.ImportFrom)]
        others = [it for it in node.body if it not in imports]
        # Sorted: their order is a formatter's business.
        node.body = sorted(imports, key=ast.dump) + others
        return self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None  # a docstring
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        arguments = node.args
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
            # Whether a hyperparameter is a Schedule decides what arrives; its domain is the study's.
            argument.annotation = _without_domain(argument) if _is_optimizer(node) else None
        for argument in (arguments.vararg, arguments.kwarg):
            if argument:
                argument.annotation = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)


def _without_domain(argument: ast.arg) -> ast.expr | None:
    """The annotation of a hyperparameter: X of `Annotated[X, domain]`."""
    hint = argument.annotation
    if isinstance(hint, ast.Subscript) and isinstance(hint.slice, ast.Tuple):
        return hint.slice.elts[0]
    return hint


def _canonical(value: object) -> Iterator[str]:
    """The tree as text that is the same in every version of Python."""
    if isinstance(value, ast.Constant):
        yield f"Constant({type(value.value).__name__} {value.value!r})"
    elif isinstance(value, ast.AST):
        yield f"{type(value).__name__}("
        for field, child in ast.iter_fields(value):
            if field not in _ADDED_LATER and child not in (None, []):
                yield f"{field}="
                yield from _canonical(child)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for child in value:
            yield from _canonical(child)
        yield "]"
    else:
        yield f"{value!r} "

"""What the code of a plug-in reaches beyond jax, optax and numpy, as far as reading can see.

An optimizer computes with arrays. Code that opens files, runs text, looks itself up or changes
other modules may still be honest, but somebody should read it: the leaderboard shows what is found
here. A text that reaches nothing cannot see its own comments, layout or docstrings either, so that
the source digest may leave them out.

Reading is no proof. A name that is put together when the code runs is not seen, unless what puts it
together is.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from optimizers.contract.syntax import bindings, without_type_checking


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


HARMLESS = _names(
    """__future__ abc bisect cmath collections contextlib copy dataclasses decimal enum fractions
    functools heapq itertools math numbers operator re string textwrap typing typing_extensions
    warnings jax numpy optax optimizers"""
)
"""Modules that compute, describe types or arrange data. Those of the standard library that read
files, start processes, know the time or look into running code are not among them."""

# Parts of the harmless modules that do more. Each stands for all names that begin with it.
_TELLING = _names(
    """jax.config jax.core jax.debug.callback jax.distributed jax.dlpack jax.export jax.extend
    jax.ffi jax.interpreters jax.lib jax.monitoring jax.numpy.load jax.numpy.save jax.profiler
    jax.stages jax.tools
    jax.experimental.array_serialization jax.experimental.compilation_cache
    jax.experimental.host_callback jax.experimental.multihost_utils
    jax.experimental.serialize_executable
    numpy.ctypeslib numpy.distutils numpy.f2py numpy.info numpy.lib numpy.load numpy.random
    numpy.save numpy.savez numpy.testing
    optimizers.conformance optimizers.contract.evaluations optimizers.contract.local_modules
    optimizers.contract.registry optimizers.contract.source_digest"""
)

# Functions of Python itself. `getattr` and `hasattr` with a plain name are harmless.
_BUILTINS = _names(
    "__import__ breakpoint compile delattr dir eval exec globals help input locals open setattr "
    "vars"
)
_BY_NAME = _names("getattr hasattr")

# Attributes, of whatever object, that read files, run functions outside the compiled program, look
# into running code, or find attributes by names that they are given.
_ATTRIBUTES = _names(
    """DataSource annotation as_text attrgetter clear_caches compiler_ir cr_frame disable_x64
    enable_x64 eval_jaxpr f_back f_builtins f_code f_globals f_lineno f_locals fromfile fromregex
    genfromtxt get_annotations get_type_hints getdoc getsource getsourcelines gi_code gi_frame
    io_callback jaxpr_as_fun loadtxt loss_pass make_jaxpr memmap methodcaller pure_callback savetxt
    singledispatch singledispatchmethod source_info tb_frame tb_lasti tb_lineno tb_next tofile"""
)

# What classes, also named tuples, ordinarily define and use.
_ORDINARY = frozenset(
    f"__{name}__"
    for name in _names(
        """abs add all and bool call class complex contains enter eq float floordiv future ge
        getitem gt hash iadd imul index init int invert isub iter itruediv le len lt main matmul
        mod module mul name ne neg new next or pos post_init pow qualname radd repr reversed
        rfloordiv rmatmul rmod rmul round rpow rsub rtruediv setattr slots str sub truediv version
        xor"""
    )
)
_OF_TUPLES = _names("_asdict _fields _make _replace")
_DUNDER = re.compile(r"__\w+__")

# What shows a program the messages of exceptions and warnings, or attributes by made-up names.
_WORDS = _names(
    """__exit__ ExitStack Formatter catch_warnings formatwarning _fields make_dataclass push
    register_dataclass"""
)
_FORMATTING = _names("format format_map")


def beyond(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Name of each file -> what it reaches, sorted; only files that reach something.

    Args:
      files: name -> text of a plug-in's own files. What they import of each other is no reach.

    Raises:
      SyntaxError: if a text is not Python.
      ValueError: if one holds null bytes or is nested too deeply to be read.
    """
    modules = {".".join(PurePosixPath(name).with_suffix("").parts) for name in files}
    own = {module.removesuffix(".__init__") for module in modules}
    try:
        found = {name: sorted(set(_reached(ast.parse(text), own))) for name, text in files.items()}
    except (RecursionError, MemoryError):
        raise ValueError("the source is nested too deeply to be read") from None
    return {name: reached for name, reached in found.items() if reached}


def sees_words(text: str) -> bool:
    """Whether the code may see messages of exceptions or warnings, which can tell line numbers, or
    look up attributes by a format that it makes up."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler) and node.name:
            return True
        if isinstance(node, ast.Attribute) and node.attr in _FORMATTING:
            if not isinstance(node.value, ast.Constant):
                return True
        elif not _WORDS.isdisjoint(_used(node)):
            return True
    return False


def _reached(tree: ast.Module, own: set[str]) -> Iterator[str]:
    nodes = list(ast.walk(without_type_checking(tree)))
    nodes += [inner for node in nodes for inner in _in_annotations(node)]
    imported = _imports(nodes)
    modules = {full for n in nodes if isinstance(n, ast.Import) for _, full in bindings(n)}
    calls = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
    bases = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    statements = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        yield from _of_imports(node, own)
        if isinstance(node, ast.Name | ast.Attribute):
            meant = _meant(node, imported)
            for full in meant:
                yield from _telling(full)
            if id(node) not in bases and isinstance(node.ctx, ast.Load):
                yield from (f"{full} as a value" for full in meant & modules)
        if isinstance(node, ast.Name):
            by_name = node.id in _BY_NAME and not _names_it(calls.get(id(node)))
            if by_name or node.id in _BUILTINS:
                yield node.id
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            yield from (f"changes {full}" for full in _meant(_changed(node), imported))
        is_docstring = isinstance(node, ast.Constant) and id(node) in statements
        names = [] if is_docstring else list(_used(node))
        yield from (name for name in names if name in _ATTRIBUTES)
        yield from {one for name in names for one in _DUNDER.findall(name)} - _ORDINARY


def _in_annotations(node: ast.AST) -> Iterator[ast.AST]:
    """The code in texts that stand as annotations: `@optimizer` evaluates them."""
    for field in ("annotation", "returns"):
        annotation = getattr(node, field, None)
        for part in ast.walk(annotation) if isinstance(annotation, ast.AST) else ():
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                with contextlib.suppress(SyntaxError):
                    yield from ast.walk(ast.parse(part.value.strip(), mode="eval"))


def _imports(nodes: Sequence[ast.AST]) -> dict[str, set[str]]:
    """Local name -> the dotted names that imports anywhere in the text bind to it."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        for local, full in bindings(node):
            if full:
                found.setdefault(local, set()).add(full)
    return found


def _of_imports(node: ast.AST, own: set[str]) -> Iterator[str]:
    """Modules that an import takes, unless they are harmless or the plug-in's own."""
    if isinstance(node, ast.Import):
        paths = [(alias.name, alias.name) for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        paths = [(str(node.module), f"{node.module}.{alias.name}") for alias in node.names]
    else:
        return  # a relative import stays in the plug-in's own package
    for module, full in paths:
        if module.partition(".")[0] in HARMLESS:
            yield from _telling(full)
        elif not any(name == module or name.startswith(f"{module}.") for name in own):
            yield module


def _telling(full: str) -> Iterator[str]:
    """The dotted name, if it is one that does more than compute, or a private one of a module."""
    for name in _TELLING:
        if full == name or full.startswith(f"{name}."):
            yield name
    parts = full.split(".")
    if parts[0] in HARMLESS:
        for i, part in enumerate(parts):
            private = part.startswith("_") and part not in _OF_TUPLES
            if private and not _DUNDER.fullmatch(part):
                yield ".".join(parts[: i + 1])
                return


def _meant(node: ast.expr, imported: Mapping[str, set[str]]) -> set[str]:
    """The dotted names that an expression may stand for, through the imports."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, set())
    if isinstance(node, ast.Attribute):
        return {f"{base}.{node.attr}" for base in _meant(node.value, imported)}
    return set()


def _changed(node: ast.expr) -> ast.expr:
    """What an assignment changes: with a[i].b = c, the attribute; with a[i] = c, a."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def _names_it(call: ast.Call | None) -> bool:
    """Whether a call of `getattr` has a plain text as the attribute's name."""
    if call is None or len(call.args) < 2:
        return False
    name = call.args[1]
    return isinstance(name, ast.Constant) and isinstance(name.value, str)


def _used(node: ast.AST) -> Iterator[str]:
    """All names and texts in a node itself: identifiers, attributes, keywords, constants."""
    for _, value in ast.iter_fields(node):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                yield one

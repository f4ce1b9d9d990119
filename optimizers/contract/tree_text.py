"""A parsed source text as text, alike on every Python from 3.11 on, unlike `ast.dump`."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# `ctx` follows from the place; `kind` is the u of u"..."; neither changes what the code does.
_IGNORED = frozenset({"ctx", "kind", "type_comment"})


def written(value: object) -> Iterator[str]:
    """The tree, or a part of it, as text."""
    if isinstance(value, ast.Constant):
        yield f"Constant({_literal(value.value)})"
    elif isinstance(value, ast.JoinedStr):
        yield "JoinedStr["
        for part in _string_parts(value):
            yield from written(part)
        yield "]"
    elif isinstance(value, ast.AST):
        yield f"{type(value).__name__}("
        for field, child in sorted(ast.iter_fields(value), key=lambda it: it[0]):
            if field not in _IGNORED and child is not None and child != []:
                yield f"{field}="
                yield from written(child)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for child in value:
            yield from written(child)
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

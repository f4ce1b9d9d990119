"""The test suite that optax runs over the optimizers in optax.contrib, for other optimizers.

It is read from the installed optax, so that it is the one that users of this optax would run.
"""

from __future__ import annotations

import ast
import unittest
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optax.contrib

SUITE = Path(optax.contrib.__file__).parent / "_common_test.py"
_LISTS = ("_MAIN_OPTIMIZERS_UNDER_TEST", "_ALL_OPTIMIZERS_UNDER_TEST")


class _OfOurs(ast.NodeTransformer):
    """Leaves out the lists of optax's own optimizers, and how it finds them."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        node.body = [part for part in map(self.visit, node.body) if part is not None]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        if node.name == "_get_opt_factory":
            return None
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id.endswith(
            ("OPTIMIZERS_UNDER_TEST", "_BASE_OPTIMIZERS")
        ):
            return None
        # It lists by name which arguments cannot be traced. An optimizer of ours says it itself.
        if isinstance(target, ast.Name) and target.id == "static_args":
            return ast.parse("static_args = factory.static_args").body[0]
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        return None

    def visit_For(self, node: ast.For) -> ast.AST | None:
        if isinstance(node.target, ast.Name) and node.target.id in (
            "optimizer",
            "uninjectable_hparam",
        ):
            return None
        return self.generic_visit(node)


def cases(
    factories: Mapping[str, Callable[..., Any]], settings: Mapping[str, Mapping[str, Any]]
) -> list[unittest.TestCase]:
    """One test case for each test of the suite and each optimizer.

    Args:
      factories: the optimizers by name.
      settings: their arguments in these tests.
    """
    tree = ast.fix_missing_locations(_OfOurs().visit(ast.parse(SUITE.read_text())))
    listed = [
        {"opt_name": name, "opt_kwargs": dict(settings[name])}
        | {"wrapper_name": None, "wrapper_kwargs": None}
        for name in factories
    ]
    scope: dict[str, Any] = {name: tuple(listed) for name in _LISTS}
    scope |= {"__name__": "optax_contrib_suite", "_get_opt_factory": factories.__getitem__}
    exec(compile(tree, str(SUITE), "exec"), scope)
    return list(unittest.defaultTestLoader.loadTestsFromTestCase(scope["ContribTest"]))

"""Checks of the files in which an optimizer is written."""

from __future__ import annotations

import ast
import contextlib
import sys
from pathlib import Path

import jax

from optimizers.conformance.problems import build, quadratic, start, take_step
from optimizers.contract.api import Optimizer
from optimizers.contract.local_modules import HARNESS, local_since
from optimizers.contract.used_files import paths_read, source_files


def loads_its_code_when_imported(opt: Optimizer) -> str | None:
    """No file is loaded later by a name that cannot be read: the source digest would lack it."""
    before = dict(sys.modules)
    with contextlib.suppress(Exception):  # other checks say what is wrong
        rule = build(opt)
        jax.eval_shape(
            lambda params: take_step(opt, rule, quadratic, params, rule.init(params))[:2],
            start(),
        )
    new = local_since(before)
    known = paths_read(_file_of(opt)) if new else set()
    late = [name for name, file in new.items() if file not in known]
    if not late:
        return None
    return (
        f"{', '.join(sorted(late))} is loaded while the optimizer runs, by a name that cannot be "
        "read in its file, so that its source digest lacks this code: import it at the top"
    )


def imports_no_harness(opt: Optimizer) -> str | None:
    """Its files do not import the harness: with the task at hand, a rule could train by itself."""
    for name, text in source_files(_file_of(opt)).items():
        for node in ast.walk(ast.parse(text)):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [str(node.module)]
            for module in modules:
                if module.partition(".")[0] in HARNESS:
                    return f"{name} imports {module}: an optimizer needs jax and optax only"
    return None


def _file_of(opt: Optimizer) -> Path:
    return Path(opt.make.__code__.co_filename)

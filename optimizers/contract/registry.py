"""Finds the `Optimizer` that a user names, such as "adamw", "./my_opt.py" or "optax:yogi"."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

from optimizers.contract.api import Optimizer
from optimizers.contract.source_digest import PACKAGE, declared_in, source_sha256

ENTRY_POINTS = "distill_bench.optimizers"


class UnknownOptimizer(LookupError):
    """No optimizer has that name; the message lists the names that exist."""


@dataclass(frozen=True)
class Resolved:
    """An optimizer and its source.

    Attributes:
      optimizer: the declared optimizer.
      path: the file that declares it.
      source_sha256: digest of its code and of the code that it imports (see source_digest.py).
    """

    optimizer: Optimizer
    path: Path
    source_sha256: str


@functools.cache
def _builtin_files() -> dict[str, Path]:
    return {
        name: path
        for path in sorted(PACKAGE.glob("*.py"))
        for name in declared_in(path.read_text())
    }


def builtins() -> list[str]:
    """Sorted names of the built-in optimizers, found without importing them."""
    return sorted(_builtin_files())


def resolve(spec: str) -> Resolved:
    """The optimizer that `spec` names.

    Args:
      spec: one of
        - the name of a built-in optimizer: "shampoo";
        - a file: "./my_opt.py", or "./my_opt.py:name" if it declares several optimizers;
        - an optimizer of optax: "optax:yogi";
        - an optimizer in an installed package: "package.module:name";
        - the name of an entry point in the group "distill_bench.optimizers".

    Raises:
      UnknownOptimizer: if nothing has that name; the message suggests the nearest one.
      Exception: any exception that the optimizer's own file raises on import.
    """
    target, _, attribute = spec.partition(":")
    if target.endswith(".py"):
        path = Path(target).expanduser()
        if not path.is_file():
            raise UnknownOptimizer(f"No file {target!r} found (looked in {Path.cwd()}).")
        return _entry(_import_file(path), path, attribute, spec)
    if target == "optax":
        from optimizers.contract import from_optax

        try:
            wrapped = from_optax.wrap(attribute)
        except LookupError as error:
            raise UnknownOptimizer(str(error)) from None
        path = Path(from_optax.__file__)
        return Resolved(wrapped, path, source_sha256(path))
    if attribute:
        try:
            module = importlib.import_module(target)
        except ModuleNotFoundError as error:
            if error.name and target.startswith(error.name):
                raise UnknownOptimizer(
                    f"No package {target!r} found for {spec!r}: is it installed?"
                ) from None
            raise
        return _entry(module, _file_of(module, spec), attribute, spec)
    names = builtins()
    if spec in names:
        module = importlib.import_module(f"{PACKAGE.name}.{_builtin_files()[spec].stem}")
        return _entry(module, _file_of(module, spec), spec, spec)
    points = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
    if spec in points:
        return resolve(points[spec].value)
    near = difflib.get_close_matches(spec, [*names, *points], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownOptimizer(
        f"Unknown optimizer {spec!r}.{hint}\n"
        f"Built in: {', '.join(names)}. Your own: --opt=./my_opt.py"
    )


def _file_of(module: ModuleType, spec: str) -> Path:
    if module.__file__ is None:
        raise UnknownOptimizer(
            f"The package in {spec!r} has no file: name the module that declares the optimizer."
        )
    return Path(module.__file__)


def _import_file(path: Path) -> ModuleType:
    name = f"_optimizer_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # typing looks the module up here to resolve string annotations
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _entry(module: ModuleType, path: Path, attribute: str, spec: str) -> Resolved:
    declared = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, Optimizer) and value.make.__module__ == module.__name__
    }
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, Optimizer):
            raise UnknownOptimizer(
                f"{path} declares no optimizer {attribute!r}. "
                f"It declares: {', '.join(sorted(declared)) or 'none'}.\n"
                "To declare one, decorate the function that returns the transformation with "
                "@optimizer\n(from optimizers import optimizer)."
            )
    elif len(declared) == 1:
        found = next(iter(declared.values()))
    elif declared:
        raise UnknownOptimizer(
            f"{path} declares {len(declared)} optimizers: choose one, "
            f"such as --opt={spec}:{min(declared)}\nIt declares: {', '.join(sorted(declared))}."
        )
    else:
        raise UnknownOptimizer(
            f"{path} declares no optimizer: decorate the function that returns the transformation "
            "with @optimizer\n(from optimizers import optimizer)."
        )
    return Resolved(found, path, source_sha256(path))

"""Finds the `Optimizer` that a user names: a built-in, a file, an attribute of a package, or more.

See `resolve`.
"""

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

_HOW = (
    "Decorate the function that returns the transformation with @optimizer "
    "(from optimizers import optimizer)."
)


class UnknownOptimizer(LookupError):
    """No optimizer has this name. The message suggests others."""


@dataclass(frozen=True)
class Resolved:
    """An optimizer and where it comes from.

    Attributes:
      optimizer: the declared optimizer.
      path: the file that declares it.
      source_sha256: digest of its code, see source_digest.py.
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
    """Names of the built-in optimizers, found without importing them."""
    return sorted(_builtin_files())


def resolve(spec: str) -> Resolved:
    """The optimizer that `spec` names.

    `spec` is one of:

    - the name of a built-in: "shampoo";
    - a file: "./my_opt.py", or "./my_opt.py:attribute" if it declares several optimizers;
    - a factory of optax: "optax:yogi";
    - an attribute of an installed package: "package.module:attribute";
    - the name of an entry point in the group "distill_bench.optimizers".

    Raises:
      UnknownOptimizer: if there is no such optimizer; the message suggests the nearest name.
      Exception: whatever a plug-in's own file raises when it is imported.
    """
    target, _, attribute = spec.partition(":")
    if target.endswith(".py"):
        path = Path(target).expanduser()
        if not path.is_file():
            raise UnknownOptimizer(f"No file found at {target!r} (in {Path.cwd()}).")
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
                    f"No package {target!r} found to take {attribute!r} from: is it installed?"
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
            f"{spec!r} is a package without a file: give the module that declares the optimizer."
        )
    return Path(module.__file__)


def _import_file(path: Path) -> ModuleType:
    name = f"_optimizer_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # typing.get_type_hints looks modules up here
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
                f"{spec!r}: {path} declares no optimizer {attribute!r}. "
                f"Declared there: {', '.join(sorted(declared)) or 'none'}.\n{_HOW}"
            )
    elif len(declared) == 1:
        found = next(iter(declared.values()))
    elif declared:
        raise UnknownOptimizer(
            f"{path} declares {len(declared)} optimizers: choose one, such as "
            f"--opt={spec}:{min(declared)}\nDeclared: {', '.join(sorted(declared))}"
        )
    else:
        raise UnknownOptimizer(f"{path} declares no optimizer.\n{_HOW}")
    return Resolved(found, path, source_sha256(path))

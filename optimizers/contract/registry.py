"""Finds the `Optimizer` that a user names, such as "adamw", "./my_opt.py" or "optax:yogi"."""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from types import ModuleType

from optimizers.contract import names
from optimizers.contract.api import Optimizer
from optimizers.contract.local_modules import (
    PACKAGE,
    Loaded,
    import_file,
    import_package,
)
from optimizers.contract.source_digest import digest, own_files
from optimizers.contract.syntax import declared_in, summaries_in
from optimizers.contract.used_files import NamesClash, source_files

ENTRY_POINTS = "distill_bench.optimizers"


class UnknownOptimizer(LookupError):
    """No optimizer has that name; the message lists the names that exist."""


@dataclass(frozen=True)
class Resolved:
    """An optimizer and its source.

    Attributes:
      optimizer: the declared optimizer.
      path: the file that declares it.
      sources: name -> text of that file and of the files that it uses (see used_files.py).
    """

    optimizer: Optimizer
    path: Path
    sources: Mapping[str, str]

    @functools.cached_property
    def source_sha256(self) -> str:
        """The digest of its code and of the code that it uses (see source_digest.py)."""
        return digest(self.sources)


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


def summaries() -> dict[str, str]:
    """What each built-in optimizer is, in one line; by name, sorted. Nothing is imported."""
    found: dict[str, str] = {}
    for path in sorted(set(_builtin_files().values())):
        found |= summaries_in(path.read_text())
    return dict(sorted(found.items()))


def file_of(spec: str) -> Path | None:
    """The file of this package that declares what `spec` names: a built-in optimizer, or one of
    optax. None for others. Nothing is imported."""
    if spec.partition(":")[0] == "optax":
        return PACKAGE / "contract" / "from_optax.py"
    return _builtin_files().get(spec)


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
        module, loaded = import_file(path)
        return _plug_in(module, path, attribute, spec, loaded)
    if target == "optax":
        from optimizers.contract import from_optax

        try:
            wrapped = from_optax.wrap(attribute)
        except LookupError as error:
            raise UnknownOptimizer(str(error)) from None
        path = Path(from_optax.__file__)
        return Resolved(wrapped, path, source_files(path))
    if attribute:
        try:
            module, loaded = import_package(target)
        except ModuleNotFoundError as error:
            if error.name and target.startswith(error.name):
                raise UnknownOptimizer(
                    f"No package {target!r} found for {spec!r}: is it installed?"
                ) from None
            raise
        return _plug_in(module, _file_of(module, spec), attribute, spec, loaded)
    if path := _builtin_files().get(spec):
        module = importlib.import_module(f"{PACKAGE.name}.{path.stem}")
        return Resolved(_declared(module, path, spec, spec), path, source_files(path))
    points = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
    if spec in points:
        return resolve(points[spec].value)
    near = difflib.get_close_matches(spec, [*builtins(), *points], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownOptimizer(
        f"Unknown optimizer {spec!r}.{hint}\n"
        f"Built in: {', '.join(builtins())}. Your own: --opt=./my_opt.py"
    )


def resolve_carried(
    sources: Mapping[str, str], name: str, optimizer: str, folder: Path
) -> Resolved:
    """The optimizer of an entry, from the files that the entry carries. Runs their code.

    Args:
      sources: name -> text of the optimizer's file and of the files that it uses.
      name: the file that declares it.
      optimizer: its name.
      folder: an empty folder. The files that are not of this package are written there.

    Raises:
      UnknownOptimizer: if the file does not declare it, or it may not be called so.
      Exception: any exception that the code raises on import.
    """
    write_own(sources, folder)
    if "/" not in name:
        return resolve(f"{folder / name}:{optimizer}")
    spec = f"{'.'.join(PurePosixPath(name).with_suffix('').parts)}:{optimizer}"
    module, loaded = import_package(spec.partition(":")[0], folder)
    return _plug_in(module, _file_of(module, spec), optimizer, spec, loaded)


def write_own(sources: Mapping[str, str], folder: Path) -> None:
    """Writes those of an entry's files that are not of this package into the folder."""
    for name, text in own_files(sources).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def _file_of(module: ModuleType, spec: str) -> Path:
    if module.__file__ is None:
        raise UnknownOptimizer(
            f"The package in {spec!r} has no file: name the module that declares the optimizer."
        )
    return Path(module.__file__)


def _plug_in(module: ModuleType, path: Path, attribute: str, spec: str, loaded: Loaded) -> Resolved:
    """An optimizer that is not built in.

    Raises:
      UnknownOptimizer: if the module does not declare it, it may not be called so, or two of its
        files have one name.
    """
    found = _declared(module, path, attribute, spec)
    if why := names.objection(found.name, builtins()):
        raise UnknownOptimizer(f"{spec}: {why}")
    try:
        return Resolved(found, path, source_files(path, loaded))
    except NamesClash as error:
        raise UnknownOptimizer(f"{spec}: {error}") from None


def _declared(module: ModuleType, path: Path, attribute: str, spec: str) -> Optimizer:
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
    return found

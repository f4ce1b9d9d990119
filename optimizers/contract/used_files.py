"""Finds the files that an optimizer uses: those that it loaded, and those that its text names."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from optimizers.contract.canonical_code import parsed
from optimizers.contract.local_modules import (
    HARNESS,
    PACKAGE,
    Loaded,
    decoded,
    is_local,
    local_file,
    relative,
    root_of,
)
from optimizers.contract.syntax import without_type_checking

SCHEDULES = "contract/schedules.py"  # which every run follows
NOT_COVERED = ("__init__.py", "contract/api.py", "contract/domains.py", "contract/signatures.py")
"""Files of this package that optimizers import and that shape no number of a run. The search
domains are part of a study's identity by themselves; a change in how the harness calls an optimizer
(api.py) raises the task's REVISION."""

_NOTHING = parsed("")
_PYTHON_FILE = re.compile(r"[\w./ -]+\.py")


class NamesClash(ValueError):
    """Two files of an optimizer would have the same name in an entry."""


def source_files(path: Path, loaded: Loaded | None = None) -> dict[str, str]:
    """The file at `path` and the files that it uses, directly or not: name -> text.

    A file of this package goes by its path ("optimizers/masks.py"), the optimizer's own file by its
    name ("my_opt.py"), others by their path from the folder in which they were found. Of the other
    files, those without any code are left out. A file that holds no Python text, such as a compiled
    extension, has its SHA-256 as text.

    Args:
      path: the optimizer's file.
      loaded: what was loaded with it; None to read only.

    Raises:
      NamesClash: if two files would have the same name.
    """
    main, loaded = path.resolve(), loaded or Loaded()
    texts, names = _collect(main, loaded)
    kept = {
        file: text
        for file, text in texts.items()
        if file == main or file in loaded.binaries or parsed(text) != _NOTHING
    }
    return _by_name(kept, names)


def paths_read(path: Path) -> set[Path]:
    """The files that reading finds the file at `path` to use, and itself."""
    return set(_collect(path.resolve(), Loaded())[0])


def _collect(main: Path, loaded: Loaded) -> tuple[dict[Path, str], dict[Path, str]]:
    """file -> text, and file -> name."""
    names = {main: main.name} | loaded.names
    pending = [main, PACKAGE / SCHEDULES, *loaded.texts]
    texts: dict[Path, str] = {file: f"sha256 {it}\n" for file, it in loaded.binaries.items()}
    while pending:
        file = pending.pop()
        if file in texts or file in (PACKAGE / name for name in NOT_COVERED):
            continue
        known = loaded.texts.get(file)
        texts[file] = decoded(file.read_bytes(), str(file)) if known is None else known
        for used, root in _used_files(texts[file], file, loaded):
            names.setdefault(used, relative(used, root))
            pending.append(used)
    return texts, names


def _by_name(texts: dict[Path, str], names: dict[Path, str]) -> dict[str, str]:
    """Name -> text, sorted."""
    found: dict[str, Path] = {}
    for file in texts:
        ours = file.is_relative_to(PACKAGE)
        name = relative(file, PACKAGE.parent) if ours else names[file]
        if name in found or (not ours and name.startswith(f"{PACKAGE.name}/")):
            other = found.get(name, PACKAGE.parent / name)
            raise NamesClash(
                f"{file} and {other} have the same name to Python: rename the file or its folder."
            )
        found[name] = file
    return {name: texts[file] for name, file in sorted(found.items())}


def _used_files(text: str, path: Path, loaded: Loaded) -> Iterator[tuple[Path, Path]]:
    """(file, the folder from which it is named) of what the text at `path` names: modules of this
    package, of its own package or beside it, modules that are loaded, and files beside it."""
    root, is_ours = root_of(path), path.is_relative_to(PACKAGE)
    is_loose = root == path.parent and is_local(path)
    tree = _read(text)
    for module in sorted(_imported_modules(tree, path)):
        top = module.partition(".")[0]
        if top == PACKAGE.name:
            yield from _module_files(PACKAGE.parent, module)
        elif is_ours or top in HARNESS:
            continue
        elif module in loaded.modules:
            yield loaded.modules[module], root
        else:
            if is_loose or top == path.relative_to(root).parts[0]:
                yield from _module_files(root, module)
            yield from _loaded_earlier(module)
    if not is_ours:
        yield from _files_beside(tree, path.parent)


@functools.lru_cache(256)  # entries carry the same files
def _read(text: str) -> ast.Module:
    return without_type_checking(ast.parse(text))


def _files_beside(tree: ast.Module, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Python files that a text names: exec(open("rule.py").read())."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            beside = folder / node.value
            if _PYTHON_FILE.fullmatch(node.value) and beside.is_file() and is_local(beside):
                yield beside.resolve(), folder


def _module_files(root: Path, module: str) -> Iterator[tuple[Path, Path]]:
    """The file of a module, and the __init__.py of each package around it, as far as they exist."""
    parts = module.split(".")
    files = [root.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts) + 1)]
    files.append(root.joinpath(*parts).with_suffix(".py"))
    return ((path.resolve(), root) for path in files if path.is_file())


def _loaded_earlier(module: str) -> Iterator[tuple[Path, Path]]:
    """The file of a local module that something else than a plug-in loaded, from wherever."""
    if module in sys.modules and (file := local_file(sys.modules[module])):
        yield file, root_of(file)


def _imported_modules(tree: ast.Module, path: Path) -> set[str]:
    """Dotted names of what a file may import, apart from imports for type annotations alone."""
    package = path.relative_to(root_of(path)).parent.parts
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
            if any(alias.name == PACKAGE.name for alias in node.names):
                modules |= set(exports().values())  # optimizers.name takes it from any of them
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            names = [alias.name for alias in node.names]
            modules |= {module, *(f"{module}.{name}".lstrip(".") for name in names)}
            if module == PACKAGE.name:
                every = set(exports().values())
                modules |= every if "*" in names else {exports().get(n, module) for n in names}
        elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{PACKAGE.name}."):
            modules.add(str(node.value))  # importlib.import_module("optimizers.masks")
    return {module for module in modules if all(map(str.isidentifier, module.split(".")))}


@functools.cache
def exports() -> dict[str, str]:
    """name -> the module that `from optimizers import name` takes it from."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names}

"""Imports the user's own code, and records what is loaded and in which text.

Code is local unless it belongs to Python, to an installed package or to this project. It runs as
the text that is recorded here: bytecode in a __pycache__ may be that of another text, and a file
may change while it runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import site
import sys
import sysconfig
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
HARNESS = frozenset({"distill_bench", "sweeps"})  # the task's REVISION says when these change


def _installed() -> frozenset[Path]:
    """Folders of Python and of installed packages, before any plug-in can add to them."""
    paths = sysconfig.get_paths()
    found = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    found += [*site.getsitepackages(), site.getusersitepackages()]
    found += [one for one in sys.path if Path(one).name in ("site-packages", "dist-packages")]
    return frozenset(Path(one).resolve() for one in found)


_INSTALLED = _installed()
_PROJECT = frozenset(PACKAGE.parent / name for name in (PACKAGE.name, *HARNESS))


def is_local(path: Path) -> bool:
    """Whether a file belongs neither to Python, nor to an installed package, nor to us."""
    return _INSTALLED.isdisjoint(path.parents) and _PROJECT.isdisjoint(path.parents)


def decoded(data: bytes, name: str) -> str:
    """The text of a Python file, with plain line ends.

    Raises:
      SyntaxError: if it is not UTF-8. Another encoding can show a reader another text than runs.
    """
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0]
    try:
        if encoding not in ("utf-8", "utf-8-sig"):
            raise SyntaxError(f"{name} declares the encoding {encoding}: remove that line.")
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise SyntaxError(f"{name} is not UTF-8 text ({error}): save it as UTF-8.") from None


def root_of(path: Path) -> Path:
    """The folder from which a file's modules are named: above its outermost package."""
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def relative(file: Path, root: Path) -> str:
    """A file's path from a folder; its name if it is not in that folder."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


@dataclass(frozen=True)
class Loaded:
    """The local code that an import loaded.

    Attributes:
      names: file -> its name: the path from the folder in which the module was found.
      texts: file -> the text that ran.
      modules: dotted name -> file.
      binaries: file -> SHA-256, of files that hold no Python text.
    """

    names: dict[Path, str] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)
    modules: dict[str, Path] = field(default_factory=dict)
    binaries: dict[Path, str] = field(default_factory=dict)


class _Loader(SourceFileLoader):
    """Compiles the text that it records; reads and writes no bytecode."""

    def __init__(self, name: str, path: str, loaded: Loaded):
        super().__init__(name, path)
        self._loaded = loaded

    def path_stats(self, path: Any) -> Any:
        raise OSError("bytecode is not used")

    def source_to_code(self, data: Any, path: Any, **options: Any) -> CodeType:
        text = decoded(bytes(data), str(path))
        if self._loaded.texts.setdefault(Path(path).resolve(), text) != text:
            raise ImportError(f"{path} changed while it was imported: import it once, as it is.")
        return super().source_to_code(text, path, **options)


@dataclass(frozen=True)
class _Finder:
    """Finds modules as Python does, and those beside the plug-in; local ones get a `_Loader`.

    own: a package that counts as local though it is installed.
    home: the plug-in's folder. It goes before other local folders, but what is installed goes
      first: a jax.py beside the plug-in hides nothing.
    """

    loaded: Loaded
    own: str
    home: Path | None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec), None)
        if path is None and self.home and not (spec and _is_installed(spec)):
            spec = PathFinder.find_spec(name, [str(self.home)]) or spec
        if spec and spec.has_location and spec.origin:
            if name.partition(".")[0] == self.own or not _is_installed(spec):
                self._record(name, Path(spec.origin).resolve(), spec)
        elif spec and any(is_local(Path(one)) for one in spec.submodule_search_locations or ()):
            _recorded.add(name)  # a folder that is a package though it has no __init__.py
        return spec

    def _record(self, name: str, file: Path, spec: ModuleSpec) -> None:
        package = name if spec.submodule_search_locations else name.rpartition(".")[0]
        folders = [one for one in package.split(".") if one]
        _recorded.add(name)
        if type(spec.loader) is SourceFileLoader:
            self.loaded.modules[name] = file
            self.loaded.names[file] = "/".join([*folders, Path(str(spec.origin)).name])
            spec.loader = _Loader(name, str(spec.origin), self.loaded)
            return
        while not file.is_file():  # a module in an archive
            file = file.parent
        self.loaded.modules[name] = file
        self.loaded.names[file] = file.name
        self.loaded.binaries[file] = hashlib.sha256(file.read_bytes()).hexdigest()


def _is_installed(spec: ModuleSpec) -> bool:
    if spec.origin in ("built-in", "frozen"):
        return True
    return bool(spec.has_location and spec.origin and not is_local(Path(spec.origin).resolve()))


_recorded: set[str] = set()  # modules of plug-ins
_at_the_end: dict[str, ModuleType] = {}  # of the last import: all modules that were loaded
_homes: set[Path] = set()  # folders of plug-ins
_folders: list[str] = []  # those of them that are on the path for no other reason
_PREFIX = "_optimizer_"  # of the names of plug-ins' own files


@contextlib.contextmanager
def _recording(own: str, home: Path | None) -> Iterator[Loaded]:
    """Records the local modules that are loaded in the block.

    Modules of other plug-ins are hidden in it: one plug-in's helper is not another's, though they
    have the same name, and what is loaded does not depend on who came before.
    """
    late = local_since(_at_the_end).items()
    _recorded.update(name for name, file in late if not _homes.isdisjoint(file.parents))
    hidden = {name: sys.modules.pop(name) for name in _recorded if name in sys.modules}
    importlib.invalidate_caches()
    before = dict(sys.modules)
    finder = _Finder(Loaded(), own, home)
    sys.meta_path.insert(0, finder)
    try:
        yield finder.loaded
        _add_unfound(finder.loaded, before)
    finally:
        sys.meta_path.remove(finder)
        _recorded.update(n for n in local_since(before) if not n.startswith(_PREFIX))
        for name, module in hidden.items():
            sys.modules.setdefault(name, module)  # for functions that import it when they run
        _at_the_end.clear()
        _at_the_end.update(sys.modules)


def _add_unfound(loaded: Loaded, before: dict[str, ModuleType]) -> None:
    """Adds local modules that the block made without the import system, from their files."""
    for file in set(local_since(before).values()) - loaded.names.keys():
        loaded.names[file] = relative(file, root_of(file))
        loaded.texts[file] = decoded(file.read_bytes(), str(file))


def local_since(before: Mapping[str, ModuleType]) -> dict[str, Path]:
    """Name -> file of the local modules that are loaded and were not in `before`."""
    new = {n: module for n, module in sys.modules.items() if module is not before.get(n)}
    return {name: file for name, module in new.items() if (file := local_file(module))}


def local_file(module: ModuleType) -> Path | None:
    """The Python file of a module, if it is local."""
    origin = getattr(module, "__file__", None)
    if not isinstance(origin, str) or not origin.endswith(".py"):
        return None
    file = Path(origin).resolve()
    return file if file.is_file() and is_local(file) else None


def import_file(path: Path) -> tuple[ModuleType, Loaded]:
    """Imports a file by itself. It may import what lies beside it, or in its package."""
    file, home = path.resolve(), root_of(path.resolve())
    name = f"{_PREFIX}{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    with _searching(home), _recording("", home) as loaded:
        loaded.names[file] = file.name
        loader = _Loader(name, str(path), loaded)
        spec = importlib.util.spec_from_file_location(name, path, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # typing looks the module up here to resolve string annotations
        try:
            loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return module, loaded


def import_package(target: str, folder: Path | None = None) -> tuple[ModuleType, Loaded]:
    """Imports a module by its dotted name, also from `folder`. All of its package counts as
    local."""
    top = target.partition(".")[0]
    own = "" if top in (PACKAGE.name, *HARNESS) else top
    with _searching(folder), _recording(own, folder) as loaded:
        return importlib.import_module(target), loaded


@contextlib.contextmanager
def _searching(folder: Path | None) -> Iterator[None]:
    """Puts a folder on the import path, behind all others. Those of earlier plug-ins are not on it
    in the block, and after it they are searched last: their functions may still import."""
    if folder:
        _homes.add(folder)
    others = sys.path[::-1]
    for one in _folders:
        if one in others:
            others.remove(one)  # once: it may also be on the path for another reason
    others.reverse()
    mine = [str(folder)] if folder and str(folder) not in others else []
    _folders[:] = [*mine, *(one for one in _folders if one not in mine)]
    sys.path[:] = [*others, *mine]
    try:
        yield
    finally:
        sys.path += [one for one in _folders if one not in sys.path]

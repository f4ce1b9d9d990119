"""The source digest: names what an optimizer's code does, however it is worded and laid out.

Results are kept under the digest of the code that made them. It covers the file of the optimizer,
the files of this package that it uses, and those beside it that it imports; of each file the code
without its words (`canonical_code`). Files that shape no number are not covered (`NOT_COVERED`).
`SCHEDULES`, which every run follows, always is. Data files that an optimizer reads are not.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

from optimizers.contract.canonical_code import canonical, is_optimizer, without_type_checking

PACKAGE = Path(__file__).parent.parent

SCHEDULES = "optimizers/contract/schedules.py"
NOT_COVERED = frozenset(
    {
        "optimizers/__init__.py",
        "optimizers/contract/api.py",
        "optimizers/contract/domains.py",
        "optimizers/contract/signatures.py",
    }
)
"""Files that optimizers import and that shape no number of a run. The search domains are part of a
study's identity by themselves; a change in how the harness calls an optimizer (api.py) raises the
task's REVISION."""

HARNESS = frozenset({"distill_bench", "sweeps"})  # the task's REVISION says when these change
_NOTHING = canonical("")


def source_files(path: Path) -> dict[str, str]:
    """The file at `path` and the files that it uses, directly or not: name -> text.

    A file of this package goes by its path ("optimizers/masks.py"), the optimizer's own file by its
    name ("my_opt.py"), others by their path from the folder that holds their package. Of the other
    files, those without any code are left out.
    """
    main = path.resolve()
    found: dict[str, str] = {}
    seen: set[Path] = set()
    pending = [main, PACKAGE.resolve().parent / SCHEDULES]
    while pending:
        current = pending.pop()
        name = current.name if current == main and not _is_ours(main) else _name(current)
        if current in seen or name in NOT_COVERED:
            continue
        seen.add(current)
        with tokenize.open(current) as file:  # in the encoding that the file names
            text = file.read()
        pending += _used_files(text, current)
        if current == main or canonical(text) != _NOTHING:
            found[name] = text
    return dict(sorted(found.items()))


def digest(files: Mapping[str, str]) -> str:
    """sha256 of what the files do, in hexadecimal.

    Raises:
      SyntaxError: if one of them is not Python.
      ValueError: if one of them holds null bytes or is nested too deeply.
    """
    whole = hashlib.sha256()
    for name, text in sorted(files.items()):
        code = canonical(text).encode()
        whole.update(f"{name}\0{len(code)}\0".encode() + code)
    return whole.hexdigest()


def source_sha256(path: Path) -> str:
    """The digest of the file at `path` and of all files that it uses."""
    return digest(source_files(path))


def declared_in(text: str) -> list[str]:
    """Names of the optimizers that a source text declares, found without running it."""
    return [str(getattr(node, "name", "")) for node in ast.parse(text).body if is_optimizer(node)]


def _is_ours(path: Path) -> bool:
    return path.is_relative_to(PACKAGE.resolve())


def _root(path: Path) -> Path:
    """The folder from which a file's modules are named: above its outermost package."""
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _name(path: Path) -> str:
    root = PACKAGE.resolve().parent if _is_ours(path) else _root(path)
    return path.relative_to(root).as_posix()


def _used_files(text: str, path: Path) -> list[Path]:
    """Files that the file at `path` imports: of this package, of its own package, or beside it."""
    root = _root(path)
    found: list[Path] = []
    for module in sorted(_imported_modules(text, path)):
        top = module.partition(".")[0]
        if top == PACKAGE.name:
            found += _module_files(PACKAGE.resolve().parent, module)
        elif top not in HARNESS and (_is_loose(path) or top == path.relative_to(root).parts[0]):
            found += _module_files(root, module)
    return found


def _is_loose(path: Path) -> bool:
    """Whether a file belongs to no package and is not installed: what is beside it is its own."""
    return _root(path) == path.parent and path.parent.name not in ("site-packages", "dist-packages")


def _module_files(root: Path, module: str) -> Iterator[Path]:
    """The file of a module, and the __init__.py of each package around it, as far as they exist."""
    parts = module.split(".")
    files = [root.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts) + 1)]
    files.append(root.joinpath(*parts).with_suffix(".py"))
    return (path for path in files if path.is_file())


def _imported_modules(text: str, path: Path) -> set[str]:
    """Dotted names of what a file may import, apart from imports for type annotations alone."""
    package = path.relative_to(_root(path)).parent.parts
    modules: set[str] = set()
    for node in ast.walk(without_type_checking(ast.parse(text))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
            if any(alias.name == PACKAGE.name for alias in node.names):
                modules |= set(_exports().values())  # optimizers.name takes it from any of them
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            names = [alias.name for alias in node.names]
            modules |= {module, *(f"{module}.{name}".lstrip(".") for name in names)}
            if module == PACKAGE.name:
                every = set(_exports().values())
                modules |= every if "*" in names else {_exports().get(n, module) for n in names}
        elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{PACKAGE.name}."):
            modules.add(str(node.value))  # importlib.import_module("optimizers.masks")
    return {module for module in modules if all(map(str.isidentifier, module.split(".")))}


@functools.cache
def _exports() -> dict[str, str]:
    """name -> the module that `from optimizers import name` takes it from."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names}

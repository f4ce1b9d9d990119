"""Which module may import which: no circles, only the arrows in ARROWS, and no script."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT

PACKAGES = ("distill_bench", "optimizers", "sweeps")
SCRIPTS = {
    f"sweeps.{name}"
    for name in ("benchmark", "evidence", "leaderboard", "run", "simulate", "tune_check", "verify")
}

# Area -> the areas that it may import. An area is a sub-package. The files directly in a package
# are an area of its name, but sweeps/cli.py is one for itself. The commands of distill_bench, the
# __main__.py of its sub-packages, are one area: nothing imports them, so they stand above the rest.
# Every area of distill_bench and sweeps may also import the files directly in distill_bench.
ARROWS = {
    "distill_bench": set(),
    "distill_bench.networks": set(),
    "distill_bench.data": set(),
    "distill_bench.weights": {"distill_bench.data", "distill_bench.networks"},
    "distill_bench.tasks": {
        "distill_bench.data",
        "distill_bench.networks",
        "distill_bench.weights",
    },
    "distill_bench.views": {"distill_bench.data", "distill_bench.tasks"},
    "distill_bench.training": {
        "distill_bench.data",
        "distill_bench.networks",
        "distill_bench.tasks",
        "distill_bench.views",
    },
    "distill_bench.teacher": {
        "distill_bench.data",
        "distill_bench.networks",
        "distill_bench.tasks",
        "distill_bench.training",
        "distill_bench.views",
        "distill_bench.weights",
    },
    "distill_bench.export": {
        "distill_bench.networks",
        "distill_bench.tasks",
        "distill_bench.training",
        "distill_bench.weights",
    },
    "distill_bench.__main__": {
        "distill_bench.data",
        "distill_bench.export",
        "distill_bench.tasks",
        "distill_bench.teacher",
        "distill_bench.training",
        "distill_bench.weights",
    },
    "optimizers.wrappers": set(),
    "optimizers.contract": {"optimizers.wrappers"},
    "optimizers.conformance": {"optimizers.contract"},
    "optimizers.kronecker": {"optimizers.wrappers"},
    "optimizers": {"optimizers.contract", "optimizers.kronecker", "optimizers.wrappers"},
    "sweeps.cli": set(),
    "sweeps.planning": {
        "distill_bench.data",
        "distill_bench.networks",
        "distill_bench.tasks",
        "distill_bench.training",
        "distill_bench.views",
        "optimizers.contract",
    },
    "sweeps.results": {"sweeps.planning"},
    "sweeps.simulation": {
        "optimizers.contract",
        "sweeps.board",
        "sweeps.planning",
        "sweeps.results",
    },
    "sweeps.timing": {
        "distill_bench.networks",
        "distill_bench.tasks",
        "distill_bench.training",
        "distill_bench.views",
        "optimizers.contract",
        "sweeps.planning",
    },
    "sweeps.execution": {
        "distill_bench.export",
        "distill_bench.networks",
        "distill_bench.tasks",
        "distill_bench.training",
        "optimizers",
        "optimizers.conformance",
        "optimizers.contract",
        "sweeps.cli",
        "sweeps.planning",
        "sweeps.results",
    },
    "sweeps.board": {
        "distill_bench.networks",
        "distill_bench.tasks",
        "distill_bench.training",
        "distill_bench.weights",
        "optimizers.contract",
        "sweeps.cli",
        "sweeps.timing",
        "sweeps.execution",
        "sweeps.planning",
        "sweeps.results",
    },
    "sweeps.claims": {
        "distill_bench.tasks",
        "sweeps.board",
        "sweeps.planning",
        "sweeps.results",
    },
    "sweeps": {
        "distill_bench.tasks",
        "distill_bench.training",
        "optimizers.contract",
        "sweeps.board",
        "sweeps.claims",
        "sweeps.cli",
        "sweeps.execution",
        "sweeps.planning",
        "sweeps.results",
        "sweeps.simulation",
        "sweeps.timing",
    },
}

# In teacher/: teachers are trained on labels with an optimizer of their own.
NAME_AN_OPTIMIZER = {"recipes.py", "hyperrule.py"}
TEST_THE_OPTIMIZERS = {
    "test_evidence.py",
    "test_optax_use.py",
    "test_optimizers.py",
    "test_adam_mini.py",
    "test_cautious.py",
    "test_conformance.py",
    "test_kl_shampoo.py",
    "test_mars.py",
    "test_muon.py",
    "test_normuon.py",
    "test_psgd_kron.py",
    "test_refused_values.py",
    "test_rule_states.py",
    "test_scion.py",
    "test_shampoo.py",
    "test_splus.py",
    "test_shampoo_abuse.py",
    "test_speedups.py",  # the first board, by name
    "shampoo_rules.py",
}

Graph = dict[str, set[str]]


class _Imports(ast.NodeVisitor):
    """Names that a module imports, also inside functions, but not under `if TYPE_CHECKING`."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        parents = self.package.split(".")
        above = parents[: len(parents) - node.level + 1] if node.level else []
        module = ".".join([*above, *([node.module] if node.module else [])])
        self.names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}


def imports(path: Path, package: str = "") -> set[str]:
    """Modules that the file imports, and the same with ".name" for each name imported from one.

    package: the dotted name of the file's package, needed for relative imports.
    """
    visitor = _Imports(package)
    visitor.visit(ast.parse(path.read_text()))
    return visitor.names


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, for the modules of PACKAGES under `root`."""
    found = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def module_graph(root: Path) -> Graph:
    """Module -> modules that it imports. `from a import b` leads to a.b, if that is a module."""
    paths, graph = modules(root), {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = imports(path, package) & paths.keys()
        # `from package import module` runs nothing of the package but its __init__.py.
        parents = {other for other in found if any(n.startswith(f"{other}.") for n in found)}
        graph[name] = found - parents - {name}
    return graph


def area_of(module: str, paths: dict[str, Path]) -> str:
    package, *rest = module.split(".")
    if package == "distill_bench" and rest[-1:] == ["__main__"]:
        return "distill_bench.__main__"
    if module == "sweeps.cli" or len(rest) > 1:
        return f"{package}.{rest[0]}"
    return module if rest and paths[module].name == "__init__.py" else package


def area_graph(root: Path) -> Graph:
    """Area -> other areas that it imports, without the files directly in distill_bench."""
    paths = modules(root)
    areas: Graph = {area_of(module, paths): set() for module in paths}
    for module, imported in module_graph(root).items():
        area = area_of(module, paths)
        areas[area] |= {area_of(other, paths) for other in imported} - {area}
    return {area: found - {"distill_bench"} for area, found in areas.items()}


def circle(graph: Graph) -> list[str]:
    """One circle, from a node back to itself; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_in_a_circle():
    assert circle(module_graph(ROOT)) == []


def test_no_sub_package_imports_itself_in_a_circle():
    assert circle(ARROWS) == []


def test_sub_packages_import_along_the_arrows_only():
    found = area_graph(ROOT)
    assert found.keys() == ARROWS.keys()
    stray = {(area, other) for area in found for other in found[area] - ARROWS[area]}
    assert stray == set()


def test_every_arrow_is_used():
    found = area_graph(ROOT)
    unused = {(area, other) for area in ARROWS for other in ARROWS[area] - found.get(area, set())}
    assert unused == set(), "remove these from ARROWS"


def test_files_directly_in_distill_bench_import_no_sub_package():
    found = module_graph(ROOT)
    for path in (ROOT / "distill_bench").glob("*.py"):
        name = "distill_bench" if path.name == "__init__.py" else f"distill_bench.{path.stem}"
        assert {other for other in found[name] if other.count(".") > 1} == set(), path


@pytest.mark.parametrize("package", ["distill_bench", "sweeps"])
def test_few_files_lie_directly_in_a_package(package):
    assert len(list((ROOT / package).glob("*.py"))) <= 10


def test_commands_are_not_imported():
    """What others need of them belongs elsewhere."""
    graph = module_graph(ROOT)
    commands = SCRIPTS | {name for name in graph if name.endswith(".__main__")}
    importing = {name: found & commands for name, found in graph.items()}
    assert {name: found for name, found in importing.items() if found} == {}


def test_optimizers_import_jax_optax_and_numpy_only():
    for path in (ROOT / "optimizers").rglob("*.py"):
        roots = {name.split(".")[0] for name in imports(path, "optimizers")}
        third_party = roots - set(sys.stdlib_module_names) - {"optimizers"}
        assert third_party <= {"jax", "optax", "numpy"}, path


def _tree(root: Path, **sources: str) -> Path:
    """A small package tree: "sweeps__board__page" is the module sweeps.board.page."""
    for name, source in sources.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        (path.parent / "__init__.py").touch()
    return root


@pytest.mark.parametrize(
    "back",
    [
        "import sweeps.board.page",
        "from sweeps.board import page",
        "from sweeps.board.page import render",
        "from .board import page",
        "def late():\n    from sweeps.board.page import render",
        "try:\n    import sweeps.board.page\nexcept ImportError:\n    pass",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import sweeps.board.page",
    ],
)
def test_a_circle_is_found(tmp_path, back):
    tree = _tree(tmp_path, sweeps__board__page="from sweeps import run", sweeps__run=back)
    assert set(circle(module_graph(tree))) == {"sweeps.board.page", "sweeps.run"}


def test_a_longer_circle_is_found(tmp_path):
    tree = _tree(
        tmp_path,
        distill_bench__a="from distill_bench import b",
        distill_bench__b="from distill_bench.c import name",
        distill_bench__c="import distill_bench.a",
    )
    assert {"distill_bench.a", "distill_bench.b", "distill_bench.c"} == set(
        circle(module_graph(tree))
    )


def test_an_import_for_type_checkers_makes_no_circle(tmp_path):
    back = "if TYPE_CHECKING:\n    from sweeps.board import page"
    tree = _tree(tmp_path, sweeps__board__page="from sweeps import run", sweeps__run=back)
    assert circle(module_graph(tree)) == []
    assert area_graph(tree) == {"sweeps": set(), "sweeps.board": {"sweeps"}}


def _strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _identifiers(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_no_optimizer_is_named_outside_optimizers():
    """In code. Longer texts, such as a flag's help, may give examples; leaderboard/ is data."""
    from optimizers.contract import registry

    optimizers = set(registry.builtins())
    own = [*(ROOT / "distill_bench").rglob("*.py"), *(ROOT / "sweeps").rglob("*.py")]
    tests = [p for p in (ROOT / "tests").rglob("*.py") if p.name not in TEST_THE_OPTIMIZERS]
    for path in [*own, *tests]:
        assert not optimizers.intersection(_strings(path)), path
    for path in (ROOT / "distill_bench").rglob("*.py"):
        if path.name not in NAME_AN_OPTIMIZER:
            assert not optimizers.intersection(map(str.lower, _identifiers(path))), path


@pytest.mark.process
def test_declaring_an_optimizer_imports_no_jax():
    code = (
        "import sys; sys.path.insert(0, '.'); import optimizers, optimizers.contract.registry; "
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

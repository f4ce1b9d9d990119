"""sweeps -> distill_bench, sweeps -> optimizers, and no other arrow; found in the imports."""

from __future__ import annotations

import ast
import sys

import pytest

from support.paths import ROOT

PACKAGES = {"optimizers", "distill_bench", "sweeps"}
ALLOWED = {"optimizers": {"optimizers"}, "distill_bench": {"distill_bench"}, "sweeps": PACKAGES}
SCRIPTS = {"sweeps.run", "sweeps.leaderboard", "sweeps.benchmark"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_imports_follow_the_arrows(package):
    for path in (ROOT / package).rglob("*.py"):
        ours = {name for name in imports(path) if name.split(".")[0] in PACKAGES}
        assert {name.split(".")[0] for name in ours} <= ALLOWED[package], path
        assert not ours & SCRIPTS, f"{path} imports a script, whose flags would be defined twice"


def test_optimizers_know_jax_and_optax_and_nothing_else():
    for path in (ROOT / "optimizers").rglob("*.py"):
        third_party = (
            {name.split(".")[0] for name in imports(path)}
            - set(sys.stdlib_module_names)
            - {"optimizers"}
        )
        assert third_party <= {"jax", "optax", "numpy"}, path


def test_no_optimizer_is_named_outside_of_optimizers_and_the_leaderboards_data():
    """In code; usage texts may give examples."""
    from optimizers.contract import registry

    own = {
        "test_optimizers.py",
        "test_conformance.py",
        "test_shampoo.py",
        "test_shampoo_abuse.py",
        "shampoo_rules.py",
    }
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in own]
    for path in [*(ROOT / "distill_bench").rglob("*.py"), *(ROOT / "sweeps").rglob("*.py"), *tests]:
        literals = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not literals & set(registry.builtins()), path
    for path in (ROOT / "distill_bench").rglob("*.py"):
        if path.name not in (
            "digits_teacher.py",
            "hyperrule.py",
        ):  # teachers are fitted to labels with one, which no comparison knows
            words = {
                word.lower()
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Name | ast.Attribute)
                for word in [getattr(node, "id", None) or node.attr]
            }
            assert not words & set(registry.builtins()), path


def test_declaring_an_optimizer_imports_no_jax():
    import subprocess

    code = "import sys; sys.path.insert(0, '.'); import optimizers, optimizers.registry; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

"""Tasks from other packages: as entry points, and as module:NAME."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from distill_bench.tasks.catalogue import DIGITS
from support import tiny
from support.paths import INSTALLED
from sweeps.board import entries

MODULE = """
import dataclasses
from distill_bench.tasks.catalogue import DIGITS

CELLS = dataclasses.replace(DIGITS, name="cells", seed=7)
NUMBER = 3

def cells():
    return CELLS

def number():
    return NUMBER
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that installs a package with these entry points and the module `cell_tasks`."""

    def install(**points):
        (tmp_path / "cell_tasks.py").write_text(MODULE)
        (tmp_path / "needy_tasks.py").write_text("import a_module_that_nobody_wrote")
        info = tmp_path / "cell_tasks-1.dist-info"
        info.mkdir()
        lines = [f"{name} = {value}" for name, value in points.items()]
        text = "\n".join(["[distill_bench.tasks]", *lines])
        (info / "entry_points.txt").write_text(text)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cell-tasks\nVersion: 1\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        for name in ("cell_tasks", "needy_tasks"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    return install


@pytest.mark.parametrize("value", ["cell_tasks:CELLS", "cell_tasks:cells"])
def test_an_entry_point_adds_a_task_to_the_leaderboard(package, value):
    before = catalogue.names()
    package(cells=value)
    assert catalogue.names() == [*before, "cells"]
    cells = dataclasses.replace(DIGITS, name="cells", seed=7)
    assert catalogue.get("cells") == cells
    assert catalogue.get("cells@same-ic").name == "cells@same-ic"
    assert catalogue.get("cells@same-ic").mode == "same/ic"
    with pytest.raises(UserError, match="Did you mean 'cells'"):
        catalogue.get("cell")


@pytest.mark.parametrize("spec", ["cell_tasks:CELLS", "cell_tasks:cells"])
def test_a_task_in_a_module_is_named_by_its_place(package, spec):
    package()
    task = catalogue.get(spec)
    assert task == dataclasses.replace(DIGITS, name=spec, seed=7)
    assert catalogue.get(f"{spec}@b8").name == f"{spec}@b8"
    assert catalogue.get(catalogue.get(f"{spec}@b8").name).batch_size == 8
    assert spec not in catalogue.names()


def test_an_entry_point_does_not_replace_a_built_in_task(package):
    package(digits="cell_tasks:CELLS")
    assert catalogue.get("digits") == DIGITS
    assert catalogue.names() == list(catalogue.CATALOGUE)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:TASK", "no module 'nowhere'. Install it"),
        ("cell_tasks.deeper:TASK", "no module 'cell_tasks.deeper'"),
        ("cell_tasks:NONE", "no attribute 'NONE'. Tasks in it: CELLS, DIGITS"),
        ("cell_tasks:NUMBER", "NUMBER in cell_tasks is of type int; it must be a Task"),
        ("cell_tasks:number", "number in cell_tasks is of type int"),
        ("cell_tasks:", "not of the form module:NAME"),
        (":CELLS", "not of the form module:NAME"),
        ("./cell_tasks.py:CELLS", "not of the form module:NAME"),
        ("other", "'other' leads to cell_tasks:CELLS, a task named 'cells'"),
        ("lost", "Cannot load task 'lost', which an installed package offers: there is no module"),
    ],
)
def test_what_is_not_a_task_is_refused(package, name, message):
    package(other="cell_tasks:CELLS", lost="nowhere:TASK")
    with pytest.raises(UserError, match=message):
        catalogue.get(name)


def test_an_error_in_the_module_itself_is_shown_as_it_is(package):
    package()
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_wrote"):
        catalogue.get("needy_tasks:TASK")


def test_scripts_find_the_tiny_task_as_that_of_a_package(tiny_task, monkeypatch):
    monkeypatch.syspath_prepend(str(INSTALLED))
    for name, value in tiny.environment(tiny_task).items():
        monkeypatch.setenv(name, value)
    assert catalogue.get("tiny") == tiny_task


def test_an_entry_cannot_name_a_module_to_import(tmp_path):
    committed = next((entries.FOLDER / "digits").glob("*.json"))
    content = json.loads(committed.read_text())
    content["study"]["task"] = "os:abort"
    path = tmp_path / "os:abort" / committed.name
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    with pytest.raises(entries.BadEntry, match="'os:abort' is not a name"):
        entries.read(path)

"""Names that a plug-in may have, and entries that go by a name that is not theirs."""

from __future__ import annotations

import dataclasses
import json

import pytest

from distill_bench.errors import UserError
from optimizers.contract import names, registry
from optimizers.contract.source_digest import digest
from support.paths import CALM
from sweeps.board import build, entries, write_entry
from sweeps.board.entries import BASELINE
from sweeps.planning.plan import make_plan
from sweeps.planning.request import PlanRequest
from sweeps.results import store

DECLARED = "from optimizers import optimizer\n@optimizer\ndef {}(lr: float = 1.0): return None\n"


def planned(path):
    return make_plan(PlanRequest((str(path),), "digits", ("125",), 8, 3))


def test_a_plug_in_with_a_built_in_name_is_refused_when_a_sweep_is_planned(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(DECLARED.format(BASELINE))
    with pytest.raises(UserError) as caught:
        planned(path)
    assert str(caught.value) == (
        f"{path}: an optimizer may not be called '{BASELINE}': it is the name of a built-in "
        f"optimizer (--opt={BASELINE}). Results and leaderboard entries are kept by name: rename "
        f"the function, for example to my_{BASELINE}."
    )
    path.write_text(DECLARED.format(f"my_{BASELINE}"))
    assert planned(path).candidates[0].study.optimizer == f"my_{BASELINE}"


@pytest.mark.parametrize(
    "name",
    [
        *(one.upper() for one in registry.builtins()),
        *(one.title() for one in registry.builtins()),
        "optax_yogi",
        "Optax_x",
        "CON",
        "lpt1",
        "all",
        "_mine",
        "__proto__",
        "1st",
        "lambda",
        "a" * 65,
        "a.b",
        "..",
        "-mine",
        "../mine",
        "/mine",
        "a\\b",
        "mine\n",
        "mine ",
        " ",
        "",
        "m\u0456ne",  # a Cyrillic letter
        "mïne",
        "m\u200bine",
        "\uff4dine",
        "mine\0",
        None,
        5,
        b"mine",
    ],
)
def test_names_that_are_not_plain_or_not_free_are_refused(name):
    found = names.objection(name, registry.builtins())
    assert found is not None
    assert found.isascii()
    assert "rename the function, for example to my_" in found
    assert "\n" not in found
    proposed = found.rpartition(" to ")[2].removesuffix(".")
    assert names.objection(proposed, registry.builtins()) is None


@pytest.mark.parametrize("name", ["mine", "AdaMine2", "a", "a" * 64, "soap_2", "x__y"])
def test_other_names_are_free(name):
    assert names.objection(name, registry.builtins()) is None


@pytest.mark.parametrize(
    "line",
    [
        "mine = dataclasses.replace(mine, name={!r})",
        "def make(lr: float = 1.0): return None\nmake.__name__ = {!r}\nmine = optimizer(make)",
    ],
)
def test_a_name_that_is_set_by_hand_is_checked_too(tmp_path, line):
    path = tmp_path / "own.py"
    for name in ("../../verdicts/x", BASELINE, ""):
        path.write_text("import dataclasses\n" + DECLARED.format("mine") + line.format(name))
        with pytest.raises(registry.UnknownOptimizer, match="rename the function"):
            registry.resolve(f"{path}:mine")


def test_an_imported_built_in_is_no_plug_in(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(f"from optimizers.{BASELINE} import {BASELINE}\n")
    for spec in (f"{path}:{BASELINE}", f"optimizers.{BASELINE}:{BASELINE}"):
        with pytest.raises(registry.UnknownOptimizer, match=f"--opt={BASELINE}"):
            registry.resolve(spec)


def loaded(root, name):
    return next(one for one in store.load(root) if one.study.optimizer == name)


def renamed(one, name, **changes):
    return dataclasses.replace(one, study=dataclasses.replace(one.study, optimizer=name), **changes)


def test_a_study_cannot_be_added_under_a_name_that_is_not_its_own(finished, board_folder):
    """As if its study.json was edited, or an earlier version had run it."""
    calm, base = loaded(finished, "calm"), loaded(finished, BASELINE)
    path = board_folder / "tiny" / f"{BASELINE}.json"
    before = path.read_bytes()
    for study, reason in (
        (renamed(calm, BASELINE), "it is the name of a built-in optimizer"),
        (renamed(calm, BASELINE, spec=BASELINE), f"its code is not that of {BASELINE} here"),
        (renamed(base, "mine"), f"said to be those of --opt={BASELINE}, which is called"),
        (renamed(base, "optax_x", spec="optax:x"), "its code is not that of optax_x here"),
        (renamed(calm, "../calm"), "a name is up to 64 ASCII letters"),
        (dataclasses.replace(base, sources=calm.sources), "do not match its source digest"),
        (
            dataclasses.replace(calm, sources=calm.sources | {"fast.so": "sha256 0\n"}),
            "it uses fast.so, which holds no Python text that an entry could show",
        ),
    ):
        with pytest.raises(UserError, match=reason):
            write_entry.write(study, None, board_folder, replace=True)
    assert path.read_bytes() == before


def test_an_entry_of_another_source_is_replaced_only_on_demand(finished, board_folder):
    calm = loaded(finished, "calm")
    path = board_folder / "tiny" / "calm.json"
    write_entry.write(calm, None, board_folder)  # the same source: newer runs of it
    sources = {name: text.replace("0.9", "0.8") for name, text in calm.sources.items()}
    study = dataclasses.replace(calm.study, source_sha256=digest(sources))
    other = dataclasses.replace(calm, study=study, sources=sources)
    mine = path.read_bytes()
    with pytest.raises(UserError, match=r"calm\.json is the entry of another source.*--replace"):
        write_entry.write(other, None, board_folder)
    assert path.read_bytes() == mine
    for damaged in (b"", b"{}", b'{"study": 5}', b"[" * 100_000):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="--replace"):
            write_entry.write(other, None, board_folder)
        assert path.read_bytes() == damaged
    path.unlink()
    path.with_name("CALM.json").write_bytes(mine)  # the same file on some systems
    with pytest.raises(UserError, match=r"CALM\.json is the entry of another source"):
        write_entry.write(other, None, board_folder)
    path.with_name("CALM.json").rename(path)
    write_entry.write(other, None, board_folder, replace=True)
    assert json.loads(path.read_text())["study"]["source_sha256"] == study.source_sha256


def forged(path, name, **changes):
    content = json.loads(path.read_text())
    for place, value in changes.items():
        (content if place in content else content["study"])[place] = value
    target = path.with_name(f"{name}.json")
    target.write_text(json.dumps(content))
    return target


def test_an_entry_by_the_name_of_a_built_in_counts_only_with_its_code(board_folder):
    folder = board_folder / "tiny"
    calm = folder / "calm.json"
    sources = json.loads(calm.read_text())["sources"]
    for changes, reason in (
        (dict(spec=f"./{BASELINE}.py"), "it is the name of a built-in optimizer"),
        (dict(spec=BASELINE), f"its code is not that of {BASELINE} here"),
    ):
        path = forged(calm, BASELINE, optimizer=BASELINE, **changes)
        found, warnings = entries.load(board_folder, ["tiny"])
        assert [entry.study.optimizer for entry in found] == ["calm"]
        (warning,) = build.make(found, warnings)["warnings"]
        assert warning.startswith(f"{path} is not counted: ")
        assert reason in warning
    forged(calm, "other", optimizer="other", spec=BASELINE)
    forged(calm, "calm", sources=sources | {"calm.py": sources["calm.py"] + "X = 1\n"})
    found, warnings = entries.load(board_folder, ["tiny"])
    assert found == []
    assert sum("do not match its source digest" in warning for warning in warnings) == 1
    assert sum("which is called" in warning for warning in warnings) == 1


@pytest.mark.process
def test_the_commands_say_how_to_rename(script, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(CALM.read_text().replace("def calm", f"def {BASELINE}"))
    done = script("run", f"--opt={path}", "--horizons=20", "--trials=1", "--seeds=1")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert f"rename the function, for example to my_{BASELINE}" in done.stderr
    assert not list((tmp_path / "runs").glob("*/*"))

"""Optimizers that no test covers are checked before they train, and before the board has them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distill_bench.errors import UserError
from optimizers.contract import registry
from support.paths import CALM, ROOT
from support.stores import Silent
from sweeps.board.entries import BASELINE
from sweeps.execution import preflight
from sweeps.planning.plan import make_plan
from sweeps.planning.study import Study
from sweeps.results import store

TWICE = """
import jax, jax.numpy as jnp, optax
from optimizers import Schedule, optimizer

@optimizer
def twice(lr: Schedule = 0.1):
    def update(updates, count, params=None):
        return jax.tree.map(lambda u: (-lr(count) * u).astype(u.dtype), updates), count + 2
    return optax.GradientTransformation(lambda params: jnp.int32(0), update)
"""
REASON = "follows its schedule: in step 1 (from 0), the schedule of lr is read at count "


@pytest.fixture
def twice(tmp_path):
    path = tmp_path / "twice.py"
    path.write_text(TWICE.replace("count + 2", "count + 3"))
    return path


@pytest.fixture
def warn(request_of, tmp_path):
    """Returns what is said of these optimizers, and who was suspected meanwhile."""

    class Watched(Silent):
        def suspect(self, optimizers):
            suspects.append(list(optimizers))

    suspects = []

    def warn(*opts, skip=()):
        display = Watched()
        suspects.clear()
        plan = make_plan(request_of("4", opts=opts))
        preflight.warn(plan.candidates, str(tmp_path / "cache"), display, skip)
        return "\n".join(display.said), [names for names in suspects if names]

    return warn


def test_a_plug_in_that_fails_is_named_with_the_reason(warn, twice, monkeypatch):
    said, suspects = warn(twice, BASELINE)
    assert said.startswith("Warning: twice fails 2 conformance checks")
    assert f"- {REASON}3" in said
    assert "- moves to the end: " in said
    assert "Training goes on." in said
    assert f"python -m optimizers.conformance {twice}" in said
    assert suspects == [["twice"]]

    # The outcomes are kept as long as the code does the same, and only as long.
    def never(*args):
        raise AssertionError("checked again")

    monkeypatch.setattr(preflight, "examine", never)
    assert warn(twice) == (said, [])
    twice.write_text("# the same code\n" + twice.read_text())
    assert warn(twice) == (said, [])
    twice.write_text(twice.read_text().replace("0.1", "0.2"))
    with pytest.raises(AssertionError, match="checked again"):
        warn(twice)


def test_who_passes_who_is_built_in_and_who_is_left_out_gets_no_warning(warn, twice):
    assert warn(CALM) == ("", [["calm"]])
    assert warn(BASELINE) == ("", [])
    assert warn(twice, skip={"twice"}) == ("", [])


def loaded(spec, folder):
    found = registry.resolve(str(spec))
    study = Study("tiny", "f" * 16, found.optimizer.name, found.source_sha256, {}, {}, {})
    return store.Loaded(study, folder, str(spec), {})


@pytest.mark.long
def test_an_entry_passes_all_checks(twice, tmp_path):
    cache = str(tmp_path / "cache")
    preflight.require(loaded(BASELINE, tmp_path), cache)
    with pytest.raises(UserError, match="cannot be an entry: it fails 2 conformance checks") as why:
        preflight.require(loaded(twice, tmp_path), cache)
    assert REASON in str(why.value)
    one = loaded(twice, tmp_path)
    twice.write_text(TWICE)
    with pytest.raises(UserError, match="has changed since it ran"):
        preflight.require(one, cache)


@pytest.mark.process
def test_the_leaderboard_takes_no_entry_that_fails(twice, tmp_path):
    one = loaded(twice, tmp_path)
    store.save_study(tmp_path / "runs", one.study, one.spec, {"twice.py": twice.read_text()}, print)
    flags = ["--add=runs", "--entries=board", "--cache=cache"]
    code = (
        "import runpy, sys; from sweeps.board import write_entry\n"
        "write_entry.check = lambda *_: None  # the made-up study has no runs\n"
        f"sys.argv = ['leaderboard', *{flags}]\n"
        f"runpy.run_path({str(ROOT / 'sweeps' / 'leaderboard.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, REASON in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    assert not (tmp_path / "board").exists()


@pytest.mark.process
@pytest.mark.long
def test_a_sweep_warns_and_goes_on(script, twice):
    flags = [f"--opt={twice}", "--horizons=4", "--seeds=1"]
    done = script("run", *flags)
    assert done.returncode == 0, done.stderr
    assert "Warning: twice fails 2 conformance checks" in done.stderr
    assert REASON in done.stderr
    assert "twice" in done.stdout

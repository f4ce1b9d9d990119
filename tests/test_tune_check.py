"""sweeps/tune_check.py: the winners' neighbours run beside them, and the board shows the gains."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from distill_bench.training.events import Finished, Point
from distill_bench.training.lane_layout import LayoutOptions
from distill_bench.training.train import train
from optimizers.contract import source_digest
from support.paths import CALM, ROOT
from support.stores import Silent
from sweeps.board import build, check_tuning, entries, markdown, tune_checks
from sweeps.board.entries import BASELINE
from sweeps.execution.execute import execute
from sweeps.execution.request import Faults
from sweeps.execution.resources import Resources
from sweeps.planning.plan import lane_of, make_plan
from sweeps.results.one_factor import analyse

RESOURCES = Resources(layout=LayoutOptions(devices=2))


def check(path, root, horizons=(4,), seeds=3, trust=False, display=None):
    with check_tuning.opened(path, trust) as (subject, entry):
        display = display or Silent()
        factors = check_tuning.run(subject, horizons, seeds, root, display, RESOURCES)
    return subject, entry, factors


class Counting(Silent):
    """A display that counts the steps trained."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def advance(self, steps):
        self.steps += steps


@pytest.mark.long
def test_neighbours_run_on_the_winners_seeds_and_a_second_call_continues(board_folder, tmp_path):
    path, root = board_folder / "tiny" / f"{BASELINE}.json", tmp_path / "checks"
    counted = Counting()
    subject, entry, factors = check(path, root, display=counted)
    rung = next(r for r in json.loads(path.read_text())["rungs"] if r["horizon"] == 4)
    recorded = {run["seed"]: run["points"][-1]["probe_loss"] for run in rung["finals"][:3]}
    assert [factor.winner for factor in factors] == [recorded] * len(subject.study.space)
    assert [factor.name for factor in factors] == list(subject.study.space)
    arms = [(factor, arm) for factor in factors for arm in factor.arms]
    assert counted.steps == 4 * 3 * len(arms)
    for factor, arm in arms:
        assert arm.losses.keys() == recorded.keys()
        assert arm.neighbour.value != rung["winner"][factor.name]
    # The loss of a neighbour is that of its run alone.
    factor, arm = arms[0]
    hparams = rung["winner"] | {factor.name: arm.neighbour.value}
    lane = lane_of(subject.optimizer, hparams, 4, 2)
    events = list(train(RESOURCES.open_engine(catalogue.get("tiny")), [lane]))
    assert isinstance(events[-1], Finished)
    losses = [e.metrics["probe_loss"] for e in events if isinstance(e, Point) and e.step == 4]
    assert losses[-1] == arm.losses[2]

    nothing = Counting()
    assert (check(path, root, display=nothing)[2], nothing.steps) == (factors, 0)
    next(root.glob("tiny/*/h4*/result.json")).unlink()
    one = Counting()
    assert (check(path, root, display=one)[2], one.steps) == (factors, 4)

    findings, largest = analyse(factors)
    assert largest
    assert largest.low <= largest.value <= largest.high
    made = tune_checks.make(entry, findings, largest, "python sweeps/tune_check.py", {"jax": "1"})
    assert tune_checks.load(entry) is None
    written = tune_checks.record(entry, made)
    assert written == path.parent / "checks" / path.name
    assert tune_checks.load(entry) == made
    board = build.make(*entries.load(board_folder, ["tiny"]))
    shown = next(e for e in board["entries"] if e["optimizer"] == BASELINE)["tune_check"]
    assert shown["largest"]["value"] == largest.value
    line = (
        f"Tuning: {BASELINE}: one hyperparameter changed at a time gains at most "
        f"{largest.percent} of loss (at 4 steps, 3 seeds)."
    )
    assert line in markdown.render(board).replace("\\", "")
    assert markdown.render(board).count("Tuning:") == 1
    path.write_text(path.read_text() + " ")
    assert tune_checks.load(entries.read(path)) is None  # the check was of other content


def test_code_in_an_entry_runs_only_if_trusted(board_folder, tmp_path):
    path = board_folder / "tiny" / "calm.json"
    with pytest.raises(UserError, match="pass --trust"):
        check(path, tmp_path / "checks")
    assert not (tmp_path / "checks").exists()


def altered(content):
    name = "calm.py"
    content["sources"][name] = content["sources"][name].replace("Log(1e-1, 1.0)", "Log(1e-1, 2.0)")
    content["study"]["source_sha256"] = source_digest.digest(content["sources"])


def another_task(content):
    content["study"]["fingerprint"] = "0" * 16


@pytest.mark.parametrize(
    ("change", "message"),
    [(altered, "its search space is not the one"), (another_task, "another version of the task")],
)
def test_an_entry_that_does_not_fit_the_code_here_is_refused(
    board_folder, tmp_path, change, message
):
    path = board_folder / "tiny" / "calm.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"cannot be checked: .*{message}"):
        check(path, tmp_path / "checks", trust=True)


def test_an_unknown_horizon_too_few_seeds_and_no_entry_are_refused(board_folder, tmp_path):
    path = board_folder / "tiny" / f"{BASELINE}.json"
    with pytest.raises(UserError, match="--horizons=5 is not a horizon of"):
        check(path, tmp_path, horizons=(5,))
    with pytest.raises(UserError, match="has 2 final runs at horizon 4; a check needs 3 or more"):
        check(path, tmp_path, seeds=2)
    with pytest.raises(UserError, match="neither an entry nor the folder of a study"):
        check(board_folder, tmp_path)


@pytest.mark.long
def test_the_script_checks_a_study_of_a_store(script, request_of, tmp_path):
    plan = make_plan(request_of("4", opts=(CALM,), seeds=3))
    (folder,) = execute(plan, tmp_path / "own", Silent(), RESOURCES, Faults())
    done = script("tune_check", str(folder), "--seeds=3")
    assert done.returncode == 0, done.stderr
    assert re.search(r"4 +lr +0\.\d+: -?\d+\.\d % \[", done.stdout)
    assert "Largest gain of all" in done.stdout
    assert "Not recorded: only an entry" in done.stdout


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name one entry or study"),
        (["nowhere.json"], "neither an entry nor the folder of a study"),
        (["a.json", "b.json"], "Name one entry or study"),
        (["a.json", "--horizons=many"], "--horizons=many"),
        (["a.json", "--seeds=2"], "--seeds=2"),
    ],
)
def test_the_script_refuses_wrong_arguments(arguments, message, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "tune_check.py"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (2, True, False)

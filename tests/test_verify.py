"""Verification: reruns an entry, detects tampering, and runs no untrusted code unasked."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest

from distill_bench.errors import UserError
from optimizers.contract import source_digest
from support.paths import ROOT
from sweeps.board import entries, protocol, verdicts
from sweeps.board.draw import Request, draw, trials_of
from sweeps.board.entries import BASELINE
from sweeps.board.rerun import verify
from sweeps.planning.search import key
from sweeps.planning.study import Result, Study, Trial
from sweeps.results.summary import chosen, winner

XLA_FLAGS = os.environ["XLA_FLAGS"]


def quiet(event, steps):
    pass


def verified(entry, seeds=1, horizons=(4,), tuning=0, trust=False, cost=False):
    return verify(entry, Request(seeds, tuning, horizons, seed=0), trust, quiet, cost)


@pytest.fixture
def elsewhere(script, monkeypatch):
    """Processes that tests start know the tiny task, and compile as this one does."""
    monkeypatch.setenv("XLA_FLAGS", XLA_FLAGS)


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return entries.read(path)


def test_an_entry_is_reproduced_to_the_last_digit_and_the_verdict_is_kept(board_folder):
    entry = entries.read(board_folder / "tiny" / f"{BASELINE}.json")
    assert verdicts.of(entry) is None
    outcome = verified(entry, 2, [], 5)
    verdict, runs = outcome.verdict, [verdicts.run_of(run) for run in outcome.verdict.runs]
    assert (verdict.verdict, all(run.identical for run in runs)) == ("reproduced", True)
    assert verdict.detail == (
        "6 runs at horizons 4, 8, 16 and 5 tuning trials gave the recorded numbers "
        "to the last digit"
    )
    assert (verdict.test, verdict.unverified) == ("exact", ["cost"])
    assert verdict.draws == [{"seed": 0, "finals": 6, "tuning": 5}]
    assert "5 of 5 tuning trials (it has 15) ended exactly as recorded." in outcome.lines
    verdicts.record(entry, verdict)
    kept = verdicts.of(entry)
    assert kept == dataclasses.replace(verdict, environments=[verdict.environment]).stamped()
    entry.path.write_text(entry.path.read_text() + " ")
    assert verdicts.of(entries.read(entry.path)) is None  # the verdict was on other content


def test_the_draw_is_repeatable_and_differs_from_draw_to_draw(board_folder):
    entry = entries.read(board_folder / "tiny" / f"{BASELINE}.json")
    drawn = [draw(entry, Request(2, 4)) for _ in range(60)]
    assert drawn[0] == draw(entry, Request(2, 4, seed=drawn[0].seed))
    assert {r.trial.seed for one in drawn for r in one.finals} == {1, 2, 3, 4, 5}
    for one in drawn:
        assert len({r.trial.seed for r in one.finals}) == 2  # of the same seeds at each rung
        assert [r.trial.horizon for r in one.finals] == [4, 4, 8, 8, 16, 16]
        assert len({(r.trial.horizon, i) for i, r in one.tuning}) == 4
        assert {r.trial.horizon for _, r in one.tuning} == {4, 8, 16}
        assert all(trials_of(entry, r.trial.horizon)[i] is r for i, r in one.tuning)
    best = [chosen(entry.results, h) for h in entry.horizons]
    drawn = [draw(entry, Request(2, 4, seed=seed)) for seed in range(400)]
    shares = [sum(any(r is w for w in best) for _, r in one.tuning) / 4 for one in drawn]
    # The first of a rung is its winner in a third of the cases. Drawn alike from the 8, 4 and 3
    # trials of the rungs, 0.24 would be winners.
    assert 0.27 < sum(shares) / 400 < 0.34
    assert len(draw(entry, Request(None, 1000)).tuning) == 15
    assert len(draw(entry, Request(None, 0)).finals) == 15


def lowered(content):
    for run in content["rungs"][0]["finals"]:
        run["points"][-1]["probe_loss"] *= 0.5


def one_lowered(content):
    for run in content["rungs"][0]["finals"][:4]:  # of which 2 of 5 seeds hit one or two
        run["points"][-1]["probe_loss"] *= 0.9999


def all_lowered(content):  # so that no number is identical
    scaled(content, 0.5)


def curve_lowered(content):
    for run in content["rungs"][1]["finals"]:
        run["curve"]["loss"] = [0.9 * loss for loss in run["curve"]["loss"]]


def points_lowered(content):
    for run in content["rungs"][1]["finals"]:
        run["points"][0]["curve_loss"] *= 0.9


def clean_lowered(content):
    for run in content["rungs"][2]["finals"]:
        run["points"][-1]["test_kl"] *= 0.99


def hidden_failure(content):
    rung = content["rungs"][2]
    for run in rung["tuning"]:
        if run["hparams"] != rung["winner"]:
            run |= {"status": "diverged", "final": None}


def scaled(content, factor):
    for rung in content["rungs"]:
        for run in rung["finals"]:
            run["points"][-1]["probe_loss"] *= factor
        for run in rung["tuning"]:
            run["final"]["probe_loss"] *= factor


def tuning_lowered(content):
    for run in content["rungs"][0]["tuning"]:
        run["final"]["probe_loss"] *= 0.999


def other_hparams(content):
    rung = content["rungs"][2]  # on whose losses no later trials depend
    other = next(run for run in rung["tuning"] if run["hparams"] != rung["winner"])
    rung["winner"] = other["hparams"]
    other["final"]["probe_loss"] *= 0.5  # so that the entry stays consistent


def other_source(content):
    name = f"optimizers/{BASELINE}.py"
    content["sources"][name] = content["sources"][name].replace("0.9", "0.8")


def other_source_and_digest(content):
    other_source(content)
    content["study"]["source_sha256"] = source_digest.digest(content["sources"])


@pytest.mark.parametrize(
    ("tamper", "detail"),
    [
        (lowered, r"the others were altered: 4 \(seed \d\) probe_loss, 4 \(seed \d\) probe_loss$"),
        (one_lowered, r"so that the others were altered: 4 \(seed \d\) probe_loss"),
        (
            all_lowered,
            "outside its interval: mean of rerun / recorded.*the mean at 4, 8, 16 is far",
        ),
        (tuning_lowered, r"so that the others were altered: 4 \(trial \d\) probe_loss"),
        (curve_lowered, r"altered: 8 \(seed \d\) curves, 8 \(seed \d\) curves$"),
        (points_lowered, r"altered: 8 \(seed \d\) curves, 8 \(seed \d\) curves$"),
        (clean_lowered, r"altered: 16 \(seed \d\) test_kl, 16 \(seed \d\) test_kl$"),
        (hidden_failure, r"altered: 16 \(trial \d\) status$"),
        (other_hparams, "were altered: 16"),
        (other_source, "its source files do not match its source digest"),
        (
            other_source_and_digest,
            rf"its source differs from the one here \(optimizers/{BASELINE}\.py\)",
        ),
    ],
)
def test_tampering_is_detected(board_folder, tamper, detail):
    entry = edited(board_folder / "tiny" / f"{BASELINE}.json", tamper)
    verdict = verified(entry, 2, [4, 8, 16], 3).verdict
    assert verdict.verdict == "failed"
    with pytest.raises(UserError, match=detail):
        raise UserError(verdict.detail)


def test_runs_of_another_optimizer_are_detected(board_folder):
    path = board_folder / "tiny" / f"{BASELINE}.json"
    other = path.with_name("better_name.json")
    other.write_text(path.read_text())
    entry = edited(other, lambda content: content["study"].update(optimizer="better_name"))
    assert "its trials are not those that the search chooses" in verified(entry).verdict.detail
    # Even if its trials are where a search for that name would look.
    verdict = verified(edited(other, forged)).verdict
    assert (verdict.verdict, verdict.detail) == (
        "failed",
        f"its runs are those of {BASELINE}, not of better_name",
    )


def forged(content):
    """Gives an entry the points that its search would choose, given the losses that it has."""
    study, rungs = Study(**content["study"]), content["rungs"]
    left = {rung["horizon"]: list(rung["tuning"]) for rung in rungs}
    losses, results = {}, []
    for stage, points in protocol.search(study, [*left]).known(losses):
        for hparams in points:
            run, trial = left[stage.horizon].pop(0), Trial(study.id, hparams, stage.horizon, 0)
            run["hparams"] = hparams
            losses[stage.horizon, key(hparams)] = run["final"]["probe_loss"]
            results.append(Result(trial, "ok", run["step"], points=((run["step"], run["final"]),)))
    for rung in rungs:
        rung["winner"] = winner(study, results, rung["horizon"]).trial.hparams


@pytest.mark.process
def test_code_in_an_entry_runs_only_if_trusted(board_folder, tmp_path, elsewhere):
    def booby_trapped(content):
        content["sources"]["calm.py"] += f"\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n"
        content["study"]["source_sha256"] = source_digest.digest(content["sources"])

    entry = edited(board_folder / "tiny" / "calm.json", booby_trapped)
    with pytest.raises(UserError, match=r"calm\.py, \d+ lines[\s\S]*pass --trust"):
        verified(entry)
    assert not (tmp_path / "ran").exists()
    verdict = verified(entry, trust=True).verdict
    assert (tmp_path / "ran").exists()
    assert (verdict.verdict, verdict.test) == ("reproduced", "exact")


# Patches what the process measures; a process that only trains cannot make its students better.
PATCH = """
from distill_bench.training import events
import distill_bench.training.train as harness
Point = events.Point

def shaded(lane, step, metrics, diagnostics):
    return Point(lane, step, {name: 0.5 * value for name, value in metrics.items()}, diagnostics)

harness.Point = shaded
"""


@pytest.mark.long
@pytest.mark.process
def test_carried_code_that_patches_its_process_is_found(board_folder, elsewhere):
    def patched(content):
        content["sources"]["calm.py"] = PATCH + content["sources"]["calm.py"]
        content["study"]["source_sha256"] = source_digest.digest(content["sources"])
        scaled(content, 0.5)

    entry = edited(board_folder / "tiny" / "calm.json", patched)
    verdict = verified(entry, trust=True).verdict
    assert verdict.verdict == "failed"
    assert re.search(r"its process gave \w+ [\d.e-]+, but its student has", verdict.detail)


@pytest.mark.process
def test_carried_code_that_ends_its_process_is_told(board_folder, elsewhere):
    def deadly(content):
        content["sources"]["calm.py"] += "\nimport os\nprint('farewell', flush=True)\nos._exit(3)\n"
        content["study"]["source_sha256"] = source_digest.digest(content["sources"])

    entry = edited(board_folder / "tiny" / "calm.json", deadly)
    with pytest.raises(UserError, match=r"did not end its runs[^$]*farewell"):
        verified(entry, trust=True)


@pytest.mark.parametrize(
    "spec", ["os:system", "/etc/passwd.py", "optax:../x", "../../calm.py:calm"]
)
def test_a_spec_cannot_name_a_file_or_module_of_this_machine(board_folder, spec):
    entry = edited(board_folder / "tiny" / "calm.json", lambda content: content.update(spec=spec))
    with pytest.raises(UserError, match="pass --trust"):
        verified(entry)


def test_an_unknown_horizon_and_altered_code_are_refused(board_folder):
    entry = entries.read(board_folder / "tiny" / "calm.json")
    with pytest.raises(UserError, match="--horizons=5 is not a horizon of"):
        verified(entry, horizons=[5])
    broken = edited(
        entry.path,
        lambda content: content["sources"].update(
            {"calm.py": "import nothing_of_that_name\n" + content["sources"]["calm.py"]}
        ),
    )
    assert "digest" in verified(broken, trust=True).verdict.detail


def test_numbers_of_another_platform_are_judged_by_their_means(board_folder):
    def elsewhere(content):
        content["study"]["versions"]["numerics"] = "00000000"
        scaled(content, 1 + 1e-6)

    entry = edited(board_folder / "tiny" / f"{BASELINE}.json", elsewhere)
    outcome = verified(entry, 2, [4, 8], 16)  # all trials, and so those near the best
    assert outcome.verdict.verdict == "reproduced"
    assert "over 4 final runs -0.00 %, expected -" in outcome.verdict.detail
    assert re.search(r"over \d+ tuning trials? -0.00 %, expected -", outcome.verdict.detail)
    assert any("All final runs: mean of rerun / recorded" in line for line in outcome.lines)
    assert "recorded with numerics 00000000, here" in outcome.lines[-1]
    assert outcome.verdict.test == "intervals"
    assert "curves" in outcome.verdict.unverified


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name one entry"),
        (["nowhere.json"], "it is not a regular file"),
        (["a.json", "b.json"], "Name one entry"),
        (["a.json", "--horizons=many"], "--horizons=many"),
        (["a.json", "--seeds=0"], "seeds"),
        (["a.json", "--tuning=-1"], "tuning"),
        (["a.json", "--draw=-1"], "draw"),
        (["a.json", "--witness=x"], "--witness goes with --restamp"),
    ],
)
def test_the_script_refuses_wrong_arguments(arguments, message, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "verify.py"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (2, True, False)

"""Verification: reruns an entry, detects tampering, and runs no untrusted code unasked."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from distill_bench.errors import UserError
from optimizers.contract import source_digest
from support.paths import ROOT
from sweeps.board import entries, verdicts
from sweeps.board.entries import BASELINE
from sweeps.board.rerun import prediction_interval, verify


def quiet(event, steps):
    pass


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return entries.read(path)


def test_an_entry_is_reproduced_to_the_last_digit_and_the_verdict_is_kept(board_folder):
    entry = entries.read(board_folder / "tiny" / f"{BASELINE}.json")
    assert verdicts.of(entry) is None
    verdict, rungs = verify(entry, 2, [], False, quiet)
    assert (
        verdict.verdict,
        [(rung.horizon, rung.identical, len(rung.rerun)) for rung in rungs],
    ) == ("reproduced", [(4, 2, 2), (8, 2, 2), (16, 2, 2)])
    assert (
        "6 runs at horizons 4, 8, 16 gave the recorded probe losses to the last digit"
        in verdict.detail
    )
    verdicts.record(entry, verdict)
    assert verdicts.of(entry) == verdict
    entry.path.write_text(entry.path.read_text() + " ")
    assert verdicts.of(entries.read(entry.path)) is None  # the verdict was on other content


def lowered(content):
    for run in content["rungs"][0]["finals"]:
        run["points"][-1]["probe_loss"] *= 0.5


def one_lowered(content):
    content["rungs"][0]["finals"][0]["points"][-1]["probe_loss"] *= 0.9999


def other_hparams(content):
    rung = content["rungs"][0]
    second = sorted(rung["tuning"], key=lambda run: run["final"]["probe_loss"])[1]
    rung["winner"] = second["hparams"]
    second["final"]["probe_loss"] = 1e-3  # so that the entry stays consistent


def other_source(content):
    name = f"optimizers/{BASELINE}.py"
    content["sources"][name] = content["sources"][name].replace("0.9", "0.8")


def other_source_and_digest(content):
    other_source(content)
    content["study"]["source_sha256"] = source_digest.digest(content["sources"])


@pytest.mark.parametrize(
    ("tamper", "detail"),
    [
        (lowered, "the mean at 4 lies outside its prediction interval"),
        (one_lowered, r"so the others were altered: 4 \(seed 1\)"),
        (other_hparams, "outside its prediction interval|were altered: 4"),
        (other_source, "its source files do not match its source digest"),
        (
            other_source_and_digest,
            rf"its source differs from the one here \(optimizers/{BASELINE}\.py\)",
        ),
    ],
)
def test_tampering_is_detected(board_folder, tamper, detail):
    entry = edited(board_folder / "tiny" / f"{BASELINE}.json", tamper)
    verdict, _ = verify(entry, 2, [4, 8], False, quiet)
    assert verdict.verdict == "failed"
    with pytest.raises(UserError, match=detail):
        raise UserError(verdict.detail)


def test_runs_of_another_optimizer_are_detected(board_folder):
    path = board_folder / "tiny" / f"{BASELINE}.json"
    other = path.with_name("better_name.json")
    other.write_text(path.read_text())
    entry = edited_as(other, "better_name")
    verdict, _ = verify(entry, 1, [4], False, quiet)
    assert (verdict.verdict, verdict.detail) == (
        "failed",
        f"its runs are those of {BASELINE}, not of better_name",
    )


def edited_as(path, name):
    return edited(path, lambda content: content["study"].update(optimizer=name))


def test_code_in_an_entry_runs_only_if_trusted(board_folder, tmp_path):
    def booby_trapped(content):
        content["sources"]["calm.py"] += f"\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n"
        content["study"]["source_sha256"] = source_digest.digest(content["sources"])

    entry = edited(board_folder / "tiny" / "calm.json", booby_trapped)
    with pytest.raises(UserError, match=r"calm\.py, \d+ lines[\s\S]*pass --trust"):
        verify(entry, 1, [4], False, quiet)
    assert not (tmp_path / "ran").exists()
    verdict, _ = verify(entry, 1, [4], True, quiet)
    assert (tmp_path / "ran").exists()
    assert verdict.verdict == "reproduced"


@pytest.mark.parametrize(
    "spec", ["os:system", "/etc/passwd.py", "optax:../x", "../../calm.py:calm"]
)
def test_a_spec_cannot_name_a_file_or_module_of_this_machine(board_folder, spec):
    entry = edited(board_folder / "tiny" / "calm.json", lambda content: content.update(spec=spec))
    with pytest.raises(UserError, match="pass --trust"):
        verify(entry, 1, [4], False, quiet)


def test_an_unknown_horizon_and_altered_code_are_refused(board_folder):
    entry = entries.read(board_folder / "tiny" / "calm.json")
    with pytest.raises(UserError, match="--horizons=5 is not a horizon of"):
        verify(entry, 1, [5], False, quiet)
    broken = edited(
        entry.path,
        lambda content: content["sources"].update(
            {"calm.py": "import nothing_of_that_name\n" + content["sources"]["calm.py"]}
        ),
    )
    assert "digest" in verify(broken, 1, [4], True, quiet)[0].detail


def test_an_unreadable_verdict_does_not_count(board_folder):
    entry = entries.read(board_folder / "tiny" / "calm.json")
    path = verdicts.path_of(entry)
    path.parent.mkdir()
    for content in ("", "[]", '{"verdict": "reproduced"}', "[" * 100_000):
        path.write_text(content)
        assert verdicts.of(entry) is None


def test_the_prediction_interval_holds_95_times_in_100():
    """Log-normal losses: five recorded runs, and the geometric mean of two new ones."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(3000):
        logs = rng.normal(-2, 0.1, 7)
        low, high = prediction_interval(np.exp(logs[:5]), 2)
        hits += low <= np.exp(logs[5:].mean()) <= high
    assert 0.94 <= hits / 3000 <= 0.96


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name one entry"),
        (["nowhere.json"], "it is not a regular file"),
        (["a.json", "b.json"], "Name one entry"),
        (["a.json", "--horizons=many"], "--horizons=many"),
        (["a.json", "--seeds=0"], "seeds"),
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

"""How a submitted entry is judged, and the workflow that does it."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import pytest
import yaml

from support.paths import CALM, ROOT
from sweeps.board import entries, submission
from sweeps.board.entries import BASELINE


@pytest.fixture
def calm(board_folder):
    return entries.read(board_folder / "tiny" / "calm.json")


@pytest.fixture
def baseline(board_folder):
    return entries.read(board_folder / "tiny" / f"{BASELINE}.json")


def test_a_sound_entry_meets_no_objection(calm, baseline):
    assert submission.objections(calm, [calm, baseline]) == []
    assert submission.objections(baseline, [calm, baseline]) == []
    assert submission.conformance(baseline) == []


def test_each_defect_is_named(calm, baseline):
    def changed(**fields):
        return dataclasses.replace(calm, study=dataclasses.replace(calm.study, **fields))

    (version,) = submission.objections(changed(fingerprint="e" * 16), [baseline])
    assert "another version of tiny" in version
    (task,) = submission.objections(changed(task="tiny@same-ic"), [baseline])
    assert "not a task of the leaderboard" in task
    (digest,) = submission.objections(changed(source_sha256="e" * 64), [baseline])
    assert "do not match" in digest
    named = changed(optimizer=BASELINE)
    assert any("name" in reason for reason in submission.objections(named, [calm]))
    twin = changed(optimizer="calm_two")
    found = submission.objections(twin, [calm, baseline])
    assert any("has the code of calm" in reason or "losses in common" in reason for reason in found)


@pytest.mark.slow
def test_code_that_cannot_be_imported_or_fails_a_check_is_refused(calm):
    def carrying(text):
        return dataclasses.replace(calm, sources={"calm.py": text})

    text = CALM.read_text()
    (reason,) = submission.conformance(carrying(f"{text}\nraise RuntimeError('no \\x1b luck')\n"))
    assert "RuntimeError" in reason
    assert "\x1b" not in reason
    ignores = text.replace("optax.trace(damping)", "optax.trace(0.9)")
    assert any("damping" in reason for reason in submission.conformance(carrying(ignores)))
    (reason,) = submission.conformance(carrying("x = 1\n"))
    assert "exactly one file that declares" in reason


@pytest.mark.process
def test_the_command_says_refused_or_what_was_mistyped(tmp_path):
    def verify(*flags):
        command = [sys.executable, str(ROOT / "sweeps" / "verify.py"), "--submission", *flags]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    entry = ROOT / "leaderboard" / "digits" / f"{BASELINE}.json"
    path = tmp_path / "digits" / entry.name
    path.parent.mkdir()
    content = json.loads(entry.read_text())
    content["study"]["fingerprint"] = "e" * 16
    path.write_text(json.dumps(content))
    done = verify(str(path))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    version = f"it ran on another version of digits ({'e' * 16})"
    assert done.stdout == f"refused: {BASELINE} on digits:\n- {version}\n"
    path.write_text("{}")
    done = verify(str(path))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"refused: {path}:\n- it has schema 'None'")
    done = verify("--restamp", str(path))
    assert (done.returncode, "leave one of them out" in done.stderr) == (2, True)
    done = verify()
    assert (done.returncode, "Name one entry" in done.stderr) == (2, True)


def test_the_workflow_runs_the_command_without_rights():
    path = ROOT / ".github" / "workflows" / "submission.yml"
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    assert "sweeps/verify.py --submission" in commands
    assert "secrets" not in commands
    # A file of a pull request may have any name: none is put into a command's text.
    assert re.findall(r"\$\{\{(.*?)\}\}", commands) == [" github.base_ref "]

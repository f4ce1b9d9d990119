"""The committed entries, README's table, and what the script says to mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support import committed
from support.paths import BRISK, ROOT
from sweeps.board import entries, markdown
from sweeps.board.consistency import inconsistencies
from sweeps.board.entries import BASELINE


def run(*flags, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "leaderboard.py"), *flags],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_every_committed_entry_is_valid_and_consistent():
    found, warnings = committed.leaderboard()
    assert warnings == []
    assert BASELINE in {entry.study.optimizer for entry in found}
    assert {entry.study.optimizer: inconsistencies(entry) for entry in found} == {
        entry.study.optimizer: [] for entry in found
    }


def test_every_committed_entry_has_the_present_source():
    from optimizers.contract import registry

    stale = [
        entry.study.optimizer
        for entry in committed.leaderboard()[0]
        if registry.resolve(entry.spec).source_sha256 != entry.study.source_sha256
    ]
    assert stale == [], "run these again and add them (see CONTRIBUTING)"


def test_the_table_in_readme_is_up_to_date():
    text = (ROOT / "README.md").read_text()
    table = text.partition(markdown.BEGIN)[2].partition(markdown.END)[0]
    assert table.strip() == markdown.render(committed.board()), (
        "python sweeps/leaderboard.py --readme=README.md"
    )


@pytest.mark.process
@pytest.mark.slow
def test_the_script_prints_every_format(tmp_path):
    table = run(cwd=tmp_path)
    assert (table.returncode, table.stderr) == (0, "")
    assert entries.notice() in " ".join(table.stdout.split())
    board = json.loads(run("--task=fashion", "--format=json", cwd=tmp_path).stdout)
    assert board["baseline"] == BASELINE
    assert [task["name"] for task in board["tasks"]] == ["fashion"]
    page = run("--task=fashion", "--html=page.html", cwd=tmp_path)
    assert (page.returncode, page.stderr) == (0, "")
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.process
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--add=nowhere"], "--add=nowhere"),
        (["--entries=nowhere"], "--entries=nowhere"),
        (["--outdir=nowhere"], "--outdir=nowhere is not a folder"),
        (["--outdir=runs", "--html=page.html"], "--outdir"),
        (["--horizons=250"], "add --outdir=runs"),
        (["--html=no/such/folder/page.html"], "cannot be written"),
        (["--readme=missing.md"], "--readme=missing.md"),
        (["--format=tabel"], "format"),
        (["--task=digit"], "--task=digit has no entry. Did you mean 'digits'?"),
        (["--task=digits", "--outdir=runs"], "leave it out with --outdir"),
        (["digits"], "Unexpected argument"),
    ],
)
def test_a_mistake_gives_one_message_and_writes_nothing(flags, message, tmp_path):
    done = run(*flags, cwd=tmp_path)
    assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (
        2,
        True,
        False,
    ), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_study_that_cannot_be_an_entry_yet_is_refused_and_nothing_is_written(script, tmp_path):
    done = script("run", f"--opt={BRISK}", "--horizons=20", "--trials=1", "--seeds=1")
    assert done.returncode == 0, done.stderr
    done = run(f"--add={tmp_path / 'runs'}", f"--entries={tmp_path / 'board'}", cwd=tmp_path)
    assert (
        done.returncode,
        "its ladder is unfinished: it has none of 125, 250, 500, 1000, 2000, 4000" in done.stderr,
        "Traceback" in done.stderr,
    ) == (1, True, False)
    assert not (tmp_path / "board").exists()

"""Tables for other programs, read back by other programs: pandas and pyarrow."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import pandas
import pytest

from distill_bench.tasks.catalogue import DIGITS
from support.paths import ROOT
from support.run_results import loaded, study
from sweeps.board import formats, run_rows, run_table, tidy
from sweeps.board.entries import BASELINE

SAME = {"task": DIGITS.name, "fingerprint": DIGITS.fingerprint()}
MINE = loaded(study("mine_%", **SAME, fixed={"kind": "=cmd"}), {125: 0.2, 250: 0.15})


@pytest.fixture(scope="module")
def found():
    return run_rows.collect([MINE])


def test_the_rows_are_those_of_the_json(found):
    read = pandas.read_csv(io.StringIO(formats.as_csv(tidy.tables(found)["rows"])))
    expected = json.loads(run_table.as_json(found))
    assert read["probe_loss"].tolist() == [row["probe_loss"] for row in expected]
    assert read["name"].tolist() == [row["name"] for row in expected]
    assert read["speedup_bound"].tolist() == ["="] * len(expected)
    assert read["hparams.lr"].tolist() == [row["hparams"]["lr"] for row in expected]
    intervals = [row["speedup_interval"] or (None, None) for row in expected]
    assert read["speedup_low"].isna().tolist() == [low is None for low, _ in intervals]


def test_curves_and_trials_hold_every_value(found):
    tables = tidy.tables(found)
    trials = pandas.read_csv(io.StringIO(formats.as_csv(tables["trials"])))
    mine = trials[trials["name"] == "mine_%"]
    assert mine.groupby("kind").size().to_dict() == {"final": 6, "tuning": 2}
    assert mine["probe_loss"].tolist() == [result.final["probe_loss"] for result in MINE.results]
    curves = pandas.read_csv(io.StringIO(formats.as_csv(tables["curves"])))
    one = curves[(curves["name"] == "mine_%") & (curves["horizon"] == 250) & (curves["seed"] == 2)]
    (result,) = [r for r in MINE.results if (r.trial.horizon, r.trial.seed) == (250, 2)]
    values = dict(zip(one["metric"], one["value"], strict=True))
    assert values.pop("probe_loss_of_few_views") == result.final["curve_loss"]
    assert values == {k: v for k, v in result.final.items() if k != "curve_loss"}
    # The committed baseline's curves are there too.
    assert {BASELINE + " (reference)"} < set(curves["name"])


def test_parquet_holds_what_csv_holds(found, tmp_path):
    written = formats.write(found, tmp_path / "new", "parquet")
    assert [path.name for path in written] == ["rows.parquet", "curves.parquet", "trials.parquet"]
    for path in written:
        read = pandas.read_parquet(path)
        table = tidy.tables(found)[path.stem]
        assert len(read) == len(table)
        for name in read.columns:
            expected = [record.get(name) for record in table]
            assert [None if pandas.isna(x) else x for x in read[name]] == pytest.approx(expected)


def test_columns_of_mixed_types_become_text(tmp_path):
    formats._parquet([{"a": 1}, {"a": "x"}, {"a": True}, {}], tmp_path / "t.parquet")
    read = pandas.read_parquet(tmp_path / "t.parquet")["a"]
    assert [None if pandas.isna(x) else x for x in read] == ["1", "x", "True", None]


def test_a_spreadsheet_takes_no_text_for_a_formula():
    table = [{"name": "=HYPERLINK(1)", "bound": "=", "value": -1.5}]
    assert formats.as_csv(table).splitlines()[1] == "'=HYPERLINK(1),=,-1.5"


def test_latex_has_a_row_for_each_optimizer(found):
    lines = formats.latex(found).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrr}"
    (mine,) = [line for line in lines if "mine" in line]
    name, *losses, gain = mine.removesuffix(r" \\").split(" & ")
    assert name == r"mine\_\%"
    assert losses == [r"$0.2000 \pm 0.0020$", r"$0.1500 \pm 0.0015$"]
    assert re.fullmatch(r"\$\d\.\d\d\\times\$ \[\d\.\d\d, \d\.\d\d\]", gain)
    assert all(line.count("&") == 3 for line in lines if line.endswith(r"\\"))


@pytest.mark.process
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=parquet"], "add --tables=DIR"),
        (["--format=cvs"], "csv"),
        (["--tables=x", "--html=y.html"], "choose one"),
        (["--tables=file/x"], "--tables=file/x cannot be written"),
        (["--format=csv", "--outdir=nowhere"], "--outdir=nowhere is not a folder"),
    ],
)
def test_a_mistake_is_one_message(flags, message, tmp_path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, str(ROOT / "sweeps" / "leaderboard.py"), *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

"""The table of one's own runs: what it shows, and that it fits the terminal."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import unicodedata
from pathlib import Path

import pytest

from support.run_results import HPARAMS, failed, loaded, study
from sweeps.board import run_rows, run_table
from sweeps.board.entries import BASELINE
from sweeps.board.run_table import INTERVAL_NOTE, as_json

BASE = {125: 0.9, 250: 0.5, 500: 0.3, 1000: 0.2}
STUDIES = [
    loaded(study(BASELINE), BASE),
    loaded(study("mine"), {250: 0.4, 500: 0.25}),
    loaded(study("an_optimizer_with_a_name_of_some_length"), {250: 0.45, 500: 0.28}),
    failed(study("hopeless"), 250, "after step 7 the parameters are not finite"),
]


def cells(line):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def lines(found, width):
    return [line for line, _ in run_table.render(found, width)]


def printed(found, monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    run_table.print_table(found)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [42, 63, 70, 80, 100, 120, 200])
@pytest.mark.parametrize("horizons", [None, {250}])
def test_every_line_fits(width, horizons):
    shown = lines(run_rows.collect(STUDIES, horizons), width)
    assert max(map(cells, shown)) <= width
    assert not any(line != line.rstrip() for line in shown)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (80, ["steps", "optimizer", "probe loss"]),
        (
            120,
            ["steps", "optimizer", "probe loss", "KL", "agreement", "accuracy"],
        ),
    ],
)
def test_the_columns_for_a_width(width, columns):
    names = next(line for line in lines(run_rows.collect(STUDIES), width) if "optimizer" in line)
    shown = [name.strip() for name in names.split("  ") if name]
    always = [f"over {BASELINE}", "trials"]
    assert shown == columns + (always if width < 120 else [*always, "failed"])


def test_what_is_printed_fits_the_terminal_and_a_pipe(monkeypatch, capsys):
    found = run_rows.collect(STUDIES)
    for columns in (80, 120):
        out = printed(found, monkeypatch, capsys, columns)
        assert out.splitlines() == lines(found, columns)
    monkeypatch.delenv("COLUMNS")
    # Without any terminal: neither standard input, output nor error is one.
    monkeypatch.setattr(os, "get_terminal_size", _no_terminal)
    run_table.print_table(found)
    assert capsys.readouterr().out.splitlines() == lines(found, 80)


def _no_terminal(*_):
    raise OSError("not a terminal")


def test_a_terminal_shows_the_same_text(monkeypatch):
    from rich.console import Console

    found, out = run_rows.collect(STUDIES), io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=80, highlight=False, no_color=True)
    monkeypatch.setattr(run_table, "_console", lambda: terminal)
    run_table.print_table(found)
    assert "\x1b[1m" in out.getvalue()  # a bold header
    assert re.sub(r"\x1b\[[0-9]*m", "", out.getvalue()).splitlines() == lines(found, 80)


def test_a_long_name_loses_its_middle_only_where_it_must():
    found = run_rows.collect(STUDIES)
    name = "an_optimizer_with_a_name_of_some_length"
    assert any(line.lstrip().startswith("an_opt") and "…" in line for line in lines(found, 80))
    table = [x for x in lines(found, 200) if not x.startswith(("Warning", "Speed-up over"))]
    assert sum(name in line for line in table) == 2  # at both rungs of the table


def test_the_winners_hyperparameters_fold_at_commas():
    found = run_rows.collect([loaded(study("a" * 30), {250: 0.4})])
    text = "\n".join(lines(found, 80))
    below = text.partition("Best hyperparameters\n")[2].partition("\n\n")[0]
    assert [line[33:] for line in below.splitlines()] == [
        "lr 0.0837, b2 0.95, weight_decay 0.001,",
        "warmup 0.1, block_size 128",
    ]


def test_a_failed_row_says_how(monkeypatch):
    text = " ".join(" ".join(lines(run_rows.collect(STUDIES), 80)).split())
    assert "hopeless (diverged)" in text
    assert "diverged 3 of 3 seeds: after step 7 the parameters are not finite" in text


def test_what_brackets_hold_is_said_once_where_there_are_any():
    with_base = " ".join(lines(run_rows.collect(STUDIES), 300))
    assert with_base.count(INTERVAL_NOTE) == 1
    assert INTERVAL_NOTE not in " ".join(lines(run_rows.collect(STUDIES[1:2]), 300))


def test_names_from_other_files_are_shown_literally(monkeypatch, capsys):
    hostile = "[bold]x[/bold]\x1b[2J\u202e\r\n"
    one = loaded(study(hostile, task="[red]dots\x1b]0;t\x07"), {250: 0.4})
    bad = failed(study("bad", task=one.study.task), 250, "\x1b[31mred [link=x]y[/link]")
    one.results[:] = [
        dataclasses.replace(
            r, trial=dataclasses.replace(r.trial, hparams={"lr": "[blink]\x1b[5m", "日本": 1})
        )
        for r in one.results
    ]
    one.problems.append((Path("x\x1b[0m"), "[b]damaged\x9b"))
    found = run_rows.collect([one, bad])
    for width in (80, 120):
        assert max(map(cells, lines(found, width))) <= width
    out = printed(found, monkeypatch, capsys, 300)
    assert set(out) & {"\x1b", "\x9b", "\x07", "\u202e", "\r"} == set()
    for text in (
        r"[bold]x[/bold]\x1b[2J\u202e\r\n",
        r"[red]dots\x1b]0;t\x07: tuned",
        r"lr [blink]\x1b[5m, 日本 1",
        r"\x1b[31mred [link=x]y[/link]",
        r"[b]damaged\x9b",
    ):
        assert text in out


def test_json_keeps_its_fields_and_tells_more():
    found = json.loads(as_json(run_rows.collect(STUDIES)))
    row = next(row for row in found if row["opt"] == "mine" and row["horizon"] == 250)
    assert row["hparams"] == HPARAMS
    assert row["speedup_interval"][0] < row["speedup"] < row["speedup_interval"][1]
    assert (row["name"], row["newest"], row["failure"]) == ("mine", False, None)
    assert (row["test_kl"], row["source_sha256"]) == (pytest.approx(0.8), "a" * 64)
    bad = next(row for row in found if row["opt"] == "hopeless")
    assert (bad["probe_loss"], bad["failure"].startswith("diverged 3 of 3")) == (None, True)

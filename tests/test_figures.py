"""The leaderboard's figures: drawn from its numbers, and README's not stale."""

from __future__ import annotations

import copy
import importlib.util
import xml.etree.ElementTree as ElementTree

import pytest

from distill_bench.errors import UserError
from support import committed
from support.paths import ROOT
from sweeps.board import figures, plotting
from sweeps.board.entries import BASELINE

README_FIGURE = ROOT / "docs" / "figures" / "digits-patience"


@pytest.fixture(scope="module")
def board():
    return committed.board()


def named(figure):
    """Names that every figure has: those of the baseline and of the lines with a colour."""
    names = [line.name for line in figure.lines]
    return [BASELINE, *[name for name in names if name != BASELINE][: plotting.HIGHLIGHTED]]


def test_every_figure_is_written_light_dark_and_as_pdf(board, tmp_path):
    one_task = board | {"tasks": [task for task in board["tasks"] if task["name"] == "digits"]}
    written = plotting.write(one_task, tmp_path / "new")
    shown = figures.figures(board, "digits")
    assert [figure.name for figure in shown] == ["patience", "convergence", "rates", "cost"]
    for figure in shown:
        for end in ("", "-dark"):
            text = (tmp_path / "new" / f"digits-{figure.name}{end}.svg").read_text()
            labels = "".join(ElementTree.fromstring(text).itertext())
            for label in (figure.x, figure.y, *named(figure)):
                assert label in labels
            assert figures.digest_in(text) == figure.digest()
        assert (tmp_path / "new" / f"digits-{figure.name}.pdf").read_bytes().startswith(b"%PDF-")
    again = plotting.write(one_task, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_another_number_is_another_digest(board):
    other = copy.deepcopy(board)
    other["entries"][0]["rungs"][0]["mean"]["probe_loss"] *= 1.001
    patience, changed = (figures.figures(one, "digits")[0] for one in (board, other))
    assert patience.digest() != changed.digest()


def test_the_points_are_the_entries(board):
    """Against the board's own numbers, for the baseline."""
    patience, convergence, rates, cost = figures.figures(board, "digits")
    entry = next(one for one in board["entries"] if one["optimizer"] == board["baseline"])
    of_baseline = {
        figure.name: next(line.points for line in figure.lines if line.name == board["baseline"])
        for figure in (patience, convergence, rates, cost)
    }
    for rung, (horizon, mean, low, high) in zip(
        entry["rungs"], of_baseline["patience"], strict=True
    ):
        assert (horizon, mean) == (rung["horizon"], rung["mean"]["probe_loss"])
        assert mean - low == pytest.approx(high - mean)
    tried = [one["probe_loss"] for one in entry["rungs"][0]["tried"] if one["status"] == "ok"]
    assert min(loss for _, loss in of_baseline["rates"]) == min(tried)
    assert [point[:2] for point in of_baseline["cost"]] == [(pytest.approx(1, rel=1e-3), 1.0)]
    steps = [step for step, _ in of_baseline["convergence"]]
    assert steps == sorted(steps)
    assert steps[-1] in {rung["horizon"] for rung in entry["rungs"]}


@pytest.mark.parametrize("end", [".svg", "-dark.svg"])
def test_readmes_figure_shows_the_leaderboard_as_it_is(board, end):
    """If not: python sweeps/leaderboard.py --figures=docs/figures"""
    drawn = README_FIGURE.with_name(f"{README_FIGURE.name}{end}").read_text()
    assert figures.digest_in(drawn) == figures.figures(board, "digits")[0].digest()


def test_without_matplotlib_one_message_says_what_to_install(board, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'distill-bench\[plots\]'"):
        plotting.write(board, tmp_path / "new")
    assert not (tmp_path / "new").exists()

"""What the page shows of the protocol: the score and its trend, longer ladders, the search."""

from __future__ import annotations

import math

import pytest

from support import boards
from support.browsers import column, leading, names, pick, script


def test_a_row_shows_the_speed_up_its_trend_and_what_it_is_in_time(show):
    def known(board):
        board["entries"][1]["overall"] = {
            "value": 1.31,
            "bound": "=",
            "low": 1.24,
            "high": 1.38,
            "rank": 1,
            "trend": {"value": -0.021, "low": -0.051, "high": 0.009},
            "wall_clock": {"task": 0.655, "paper": 1.2},
        }
        board["entries"][1]["rungs"][1]["speedup"] = {"value": 1.4, "bound": "="}

    browser = show(boards.mutated(known))
    row = names(browser).index("brisk")

    def cells(*keys):
        return [column(browser, key)[row] for key in keys]

    assert cells("speedup", "trend", "wall_clock") == [
        "1.31×[1.24, 1.38]",
        "-2.1% ± 3.0",
        "0.66×",
    ]
    caption = script(browser, "return one('#table-caption').textContent")
    assert "Entries sharing a rank are statistically tied." in caption
    assert "a repetition with other seeds and another search" in caption
    pick(browser, "tr[data-entry='1'] .expand")
    detail = script(browser, "return one('.detail').textContent")
    for text in ("[1.24, 1.38]", "-2.1% [-5.1%, 0.9%]", "0.66×", "1.20×"):
        assert text in detail
    # At one horizon: a step takes twice the baseline's time there too.
    pick(browser, "#horizon input[value='500']")
    row = names(browser).index("brisk")
    assert cells("trend", "wall_clock") == ["–", "0.70×"]


def test_what_code_reaches_is_shown_in_the_row_and_its_details(show):
    def reaching(board):
        board["entries"][1]["reaches"] = ["brisk.py: ctypes, exec"]

    browser = show(boards.mutated(reaching))
    notes = script(browser, "return all('tr.entry .note').map((note) => note.textContent)")
    assert [note for note in notes if "reaches beyond jax" in note] == ["reaches beyond jax"]
    pick(browser, "tr[data-entry='1'] .expand")
    detail = script(browser, "return one('.detail').textContent")
    assert "reaches beyond jax, optax and numpy" in detail
    assert "brisk.py: ctypes, exec" in detail


def test_the_baselines_longer_horizons_do_not_enter_its_overall_losses(show):
    board = boards.board(4, horizons=(250, 500))
    browser = show(board)
    losses = [rung["mean"]["probe_loss"] for rung in board["entries"][0]["rungs"]]
    assert len(losses) == 4
    row = names(browser).index(boards.BASELINE)
    shown = leading(column(browser, "probe_loss"))[row]
    assert shown == pytest.approx(math.sqrt(losses[0] * losses[1]), abs=1e-4)
    assert column(browser, "trials") == ["16"] * 4
    assert "rungs" not in script(browser, "return one('#table tbody').textContent")


def test_the_figures_of_tuning_show_the_shortest_horizon_and_say_so(show):
    browser = show(boards.board(5))
    for horizon in ("all", "1000"):
        pick(browser, f"#horizon input[value='{horizon}']")
        for figure, shown in (("sensitivity", "250 steps, by"), ("best-after", "at 250 steps")):
            text = script(browser, "return one(`#${arguments[0]} figcaption`).textContent", figure)
            assert shown in text
            assert "the shortest horizon, the only one at which trials are spread" in text
            drawn = script(browser, "return all(`#${arguments[0]} .plot .series`).length", figure)
            assert drawn == 5, figure
    assert "runs of 1,000 steps" in script(
        browser, "return one('#convergence figcaption').textContent"
    )


def test_many_trials_are_points_without_a_line(show):
    def many(board):
        rung = board["entries"][1]["rungs"][0]
        rung["tried"] = [
            {"hparams": {"lr": 0.01 * 1.03**i}, "status": "ok", "probe_loss": 0.2 + 0.001 * i}
            for i in range(96)
        ]
        rung["best_after"] = [0.3 - 0.001 * k for k in range(48)]

    browser = show(boards.mutated(many))
    parts = (
        "const group = `#${arguments[0]} .series[data-entry='1']`;"
        "return [all(`${group} .line`).length, all(`${group} .mark`).length]"
    )
    assert script(browser, parts, "sensitivity") == [0, 96]
    lines, markers = script(browser, parts, "best-after")
    assert lines == 1
    assert 2 < markers < 24

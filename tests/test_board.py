"""The leaderboard built from entries, and its tables."""

from __future__ import annotations

import functools
import io
import json
import re

import numpy as np
import pytest

from distill_bench.errors import UserError
from support.copies import made_up
from sweeps.board import build, entries, markdown, protocol, tables
from sweeps.board.entries import BASELINE
from sweeps.results import statistics


@pytest.fixture
def made(board_folder):
    return build.make(*entries.load(board_folder, ["tiny"]))


def test_every_entry_is_shown_with_its_rungs(made):
    assert [entry["optimizer"] for entry in made["entries"]] == sorted(
        [BASELINE, "calm"], key=lambda name: ranks(made)[name]
    )
    for entry in made["entries"]:
        assert [rung["horizon"] for rung in entry["rungs"]] == [4, 8, 16]
        for rung, trials in zip(entry["rungs"], (8, 4, 3), strict=True):
            assert (rung["seeds"], rung["trials"], len(rung["tried"])) == (5, trials, trials)
            assert len(rung["curve"]["train_loss"]) == len(rung["curve"]["probe_loss"]) == 5
        assert (
            f"--opt={entry['spec']} --horizons=4,8,16 --trials=8 --seeds=5" in entry["reproduce"][1]
        )
        assert entry["overall"]["rungs"] == [4, 8, 16]
    (task,) = made["tasks"]
    assert (task["rungs"], task["law"]) == ([4, 8, 16], None)  # three rungs are too few for a law
    json.dumps(made, allow_nan=False)


def test_only_the_trials_that_are_spread_show_what_tuning_brings(made, board_folder):
    """They are half of those at the shortest horizon; all later ones lie where losses are low."""
    for shown in made["entries"]:
        entry = entries.read(board_folder / "tiny" / f"{shown['optimizer']}.json")
        search = protocol.search(entry.study, entry.horizons)
        (stage, spread), *_ = search.known({})
        assert (stage.horizon, len(spread)) == (4, 4)
        first, *later = shown["rungs"]
        losses = [run["probe_loss"] for run in first["tried"] if run["hparams"] in list(spread)]
        assert first["best_after"] == pytest.approx(statistics.best_after(losses))
        assert first["best_after"][-1] == min(losses)
        assert first["sensitivity"]["typical"] == pytest.approx(np.median(losses) / min(losses))
        assert [(rung["best_after"], rung["sensitivity"]) for rung in later] == [([], None)] * 2


def test_the_generalization_gap_is_given_for_each_horizon(made):
    for gap in made["tasks"][0]["gap"]:
        means = [
            rung["mean"]
            for entry in made["entries"]
            for rung in entry["rungs"]
            if rung["horizon"] == gap["horizon"]
        ]
        assert gap["mean"] == pytest.approx(
            sum(mean["heldout_kl"] - mean["probe_loss"] for mean in means) / len(means)
        )
        assert gap["largest"] >= gap["mean"]


def ranks(made):
    return {entry["optimizer"]: entry["overall"]["rank"] for entry in made["entries"]}


def test_the_baseline_is_exactly_as_fast_as_itself(made):
    base = next(entry for entry in made["entries"] if entry["optimizer"] == BASELINE)
    assert [(rung["speedup"]["value"], rung["speedup"]["bound"]) for rung in base["rungs"]] == [
        (pytest.approx(1.0), "=")
    ] * 3
    assert base["overall"]["value"] == pytest.approx(1.0)
    assert (base["overall"]["low"], base["overall"]["trend"]) == (None, None)
    # The costs of board_folder: a step takes 12 ms, and 11 with the baseline's update.
    assert base["overall"]["wall_clock"]["task"] == pytest.approx(11 / 12)


def test_a_speed_up_in_time_is_that_in_steps_by_the_time_of_a_step(made):
    for entry in made["entries"]:
        steps, time = entry["overall"]["value"], entry["overall"]["wall_clock"]
        assert time["task"] == pytest.approx(steps * 11 / 12)
        assert time["task"] < time["paper"] < steps  # the update is a smaller part of its steps


def test_a_twin_of_the_baseline_is_as_fast_at_any_length(board_folder):
    copy_with_losses(board_folder / "tiny" / f"{BASELINE}.json", "twin", 1.0)
    made = build.make(*entries.load(board_folder, ["tiny"]))
    twin = next(entry for entry in made["entries"] if entry["optimizer"] == "twin")["overall"]
    assert (twin["value"], twin["bound"]) == (pytest.approx(1.0, abs=1e-6), "=")
    assert twin["low"] < 1 < twin["high"]
    assert twin["trend"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert twin["trend"]["low"] < 0 < twin["trend"]["high"]


def copy_with_losses(path, name, factor):
    """A copy of the entry under another name, its final losses multiplied by `factor`."""

    def multiply(content):
        for rung in content["rungs"]:
            for run in rung["finals"]:
                run["points"][-1]["probe_loss"] *= factor

    made_up(path, name, multiply)


def test_a_clearly_lower_loss_ranks_first_and_equal_losses_tie(board_folder):
    path = board_folder / "tiny" / f"{BASELINE}.json"
    copy_with_losses(path, "twin", 1.0)
    copy_with_losses(path, "lucky", 0.99)  # less than luck in so small a search explains
    found = ranks(build.make(*entries.load(board_folder, ["tiny"])))
    assert found["twin"] == found["lucky"] == found[BASELINE] == 1
    copy_with_losses(path, "better", 0.5)
    board = build.make(*entries.load(board_folder, ["tiny"]))
    assert (board["entries"][0]["optimizer"], board["entries"][0]["overall"]["rank"]) == (
        "better",
        1,
    )


def test_an_entry_behind_its_special_case_gets_a_warning(board_folder, monkeypatch):
    copy_with_losses(board_folder / "tiny" / f"{BASELINE}.json", "special", 0.5)
    monkeypatch.setitem(build.SPECIAL_CASES, BASELINE, ["special"])
    made = build.make(*entries.load(board_folder, ["tiny"]))
    base = next(entry for entry in made["entries"] if entry["optimizer"] == BASELINE)
    assert any("behind its special case special" in warning for warning in base["warnings"])


def test_without_a_baseline_or_entries_there_is_no_speedup(board_folder):
    (board_folder / "tiny" / f"{BASELINE}.json").unlink()
    (alone,) = build.make(*entries.load(board_folder, ["tiny"]))["entries"]
    assert (
        alone["overall"]["value"],
        alone["overall"]["rank"],
        alone["overall"]["trend"],
        alone["overall"]["wall_clock"],
        alone["rungs"][0]["speedup"]["value"],
        alone["rungs"][0]["rank"],
    ) == (None, None, None, None, None, 1)
    row = tables.cells(build.make(*entries.load(board_folder, ["tiny"])), "tiny", True)[1][0]
    assert row[:5] == ["-", "calm", "-", "-", "-"]
    empty = build.make([])
    assert (empty["entries"], empty["tasks"], markdown.render(empty)) == ([], [], "")


def test_pairs_that_a_held_out_metric_orders_differently_are_listed(board_folder):
    path = board_folder / "tiny" / f"{BASELINE}.json"
    copy_with_losses(path, "better", 0.5)
    content = json.loads(path.with_name("better.json").read_text())
    for run in content["rungs"][0]["finals"]:
        run["points"][-1]["heldout_kl"] *= 4
    path.with_name("better.json").write_text(json.dumps(content))
    (task,) = build.make(*entries.load(board_folder, ["tiny"]))["tasks"]
    assert {
        "horizon": 4,
        "metric": "heldout_kl",
        "lower_loss": "better",
        "better_metric": BASELINE,
    } in task["disagreements"]
    assert not [
        pair
        for pair in task["disagreements"]
        if pair["horizon"] == 8
        and pair["metric"] == "heldout_kl"
        and pair["better_metric"] == BASELINE
    ]


def test_the_markdown_table_is_written_between_its_markers(made, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Before\n{markdown.BEGIN}\nreplaced\n{markdown.END}\nAfter\n")
    markdown.update(readme, made)
    text = readme.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nAfter\n")
    assert "replaced" not in text
    assert text.count("\n| ") == 2 + len(made["entries"])
    markdown.update(readme, made)
    assert readme.read_text() == text
    readme.write_text("no markers")
    with pytest.raises(UserError, match="has no place for what this command writes"):
        markdown.update(readme, made)


def test_hostile_text_is_escaped_in_markdown(made):
    made["entries"][0]["optimizer"] = "<script>|[x](javascript:1)`"
    assert "<script>" not in markdown.render(made)
    assert "[x](" not in markdown.render(made)


def test_the_table_prints(made, capsys):
    tables.print_board(made)
    out = capsys.readouterr().out
    assert BASELINE in out
    assert "calm" in out
    text = " ".join(out.split())
    assert "rank: one more than the number of entries that are significantly better" in text
    assert "for the same loss, over all horizons together, then at each number of steps." in text
    assert "in time: the speed-up divided by step time." in text


def test_the_table_fits_the_terminal(made, monkeypatch):
    from rich import console

    def shown(width):
        out = io.StringIO()
        terminal = functools.partial(
            console.Console, file=out, force_terminal=True, width=width, no_color=True
        )
        with monkeypatch.context() as patch:
            patch.setattr(console, "Console", lambda **_: terminal(highlight=False))
            tables.print_board(made)
        return re.sub(r"\x1b\[[0-9]*m", "", out.getvalue()).splitlines()

    for width in (40, 80, 160):
        lines = shown(width)
        assert max(map(len, lines)) <= width
        (row,) = (line for line in lines if re.match(r" *\S+  calm ", line))
        overall = next(one for one in made["entries"] if one["optimizer"] == "calm")["overall"]
        assert tables.format_gain(overall, True) in row
    assert any("reproduced" in line and "failed" in line for line in shown(160))


def test_the_table_shows_the_speed_up_its_trend_and_time(made):
    names, rows = tables.cells(made, "tiny", intervals=True)
    cells = dict(zip(names, rows[[row[1] for row in rows].index("calm")], strict=True))
    overall = next(entry for entry in made["entries"] if entry["optimizer"] == "calm")["overall"]
    assert names[5:8] == ["4", "8", "16"]
    assert cells["speed-up [95 %]"] == tables.format_gain(overall, True)
    assert cells["in time"] == f"{overall['wall_clock']['task']:.2f}x"
    assert (cells["step time"], cells["trials"]) == ("1.09x", "8")
    calm = made["entries"][[entry["optimizer"] for entry in made["entries"]].index("calm")]
    calm["overall"]["trend"] = {"value": -0.021, "low": -0.051, "high": 0.009}
    (row,) = (row for row in tables.cells(made, "tiny", True)[1] if row[1] == "calm")
    assert row[names.index("per doubling")] == "-2 % ± 3"


def test_the_caption_gives_the_law_of_the_baselines_curve(made):
    law = {"floor": 0.0294, "scale": 0.063, "exponent": 0.69}
    text = tables.caption(made, made["tasks"][0] | {"law": law})
    assert f"{BASELINE}'s loss is 0.0294 + 0.0630 (steps / 1000)^-0.69." in text
    assert "(steps / 1000)" not in tables.caption(made, made["tasks"][0])

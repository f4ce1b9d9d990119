"""The leaderboard built from entries, and its tables."""

from __future__ import annotations

import json

import pytest

from distill_bench.errors import UserError
from sweeps.board import build, entries, tables
from sweeps.board.entries import BASELINE


@pytest.fixture
def made(board_folder):
    return build.make(*entries.load(board_folder, ["tiny"]))


def test_every_entry_is_shown_with_its_rungs(made):
    assert [entry["optimizer"] for entry in made["entries"]] == sorted(
        [BASELINE, "calm"], key=lambda name: ranks(made)[name]
    )
    for entry in made["entries"]:
        assert [rung["horizon"] for rung in entry["rungs"]] == [4, 8, 16]
        for rung in entry["rungs"]:
            assert (rung["seeds"], rung["trials"], len(rung["tried"]), len(rung["best_after"])) == (
                5,
                8,
                8,
                8,
            )
            assert rung["best_after"][-1] == pytest.approx(
                min(run["probe_loss"] for run in rung["tried"])
            )
            assert len(rung["curve"]["train_loss"]) == len(rung["curve"]["probe_loss"]) == 5
        assert (
            f"--opt={entry['spec']} --horizons=4,8,16 --trials=8 --seeds=5" in entry["reproduce"][1]
        )
    # At the baseline's longest horizon no speed-up above 1 can be measured.
    assert made["tasks"][0]["overall_rungs"] == [4, 8]
    json.dumps(made, allow_nan=False)


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
    assert base["overall"]["low"] is None


def copy_with_losses(path, name, factor):
    """A copy of the entry under another name, its final losses multiplied by `factor`."""
    content = json.loads(path.read_text())
    content["study"]["optimizer"] = name
    for rung in content["rungs"]:
        for run in rung["finals"]:
            run["points"][-1]["probe_loss"] *= factor
    path.with_name(f"{name}.json").write_text(json.dumps(content))


def test_a_clearly_lower_loss_ranks_first_and_equal_losses_tie(board_folder):
    path = board_folder / "tiny" / f"{BASELINE}.json"
    copy_with_losses(path, "better", 0.98)
    copy_with_losses(path, "twin", 1.0)
    found = ranks(build.make(*entries.load(board_folder, ["tiny"])))
    assert found["better"] == 1
    assert found["twin"] == found[BASELINE]


def test_an_entry_behind_its_special_case_gets_a_warning(board_folder, monkeypatch):
    copy_with_losses(board_folder / "tiny" / f"{BASELINE}.json", "special", 0.9)
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
        alone["rungs"][0]["speedup"]["value"],
    ) == (None, 1, None)
    empty = build.make([])
    assert (empty["entries"], empty["tasks"], tables.markdown(empty)) == ([], [], "")


def test_pairs_that_a_held_out_metric_orders_differently_are_listed(board_folder):
    path = board_folder / "tiny" / f"{BASELINE}.json"
    copy_with_losses(path, "better", 0.9)
    content = json.loads(path.with_name("better.json").read_text())
    for run in content["rungs"][0]["finals"]:
        run["points"][-1]["heldout_kl"] *= 2
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
    readme.write_text(f"# Before\n{tables.BEGIN}\nreplaced\n{tables.END}\nAfter\n")
    tables.update(readme, made)
    text = readme.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nAfter\n")
    assert "replaced" not in text
    assert text.count("\n| ") == 2 + len(made["entries"])
    tables.update(readme, made)
    assert readme.read_text() == text
    readme.write_text("no markers")
    with pytest.raises(UserError, match="has no place for the leaderboard"):
        tables.update(readme, made)


def test_hostile_text_is_escaped_in_markdown(made):
    made["entries"][0]["optimizer"] = "<script>|[x](javascript:1)`"
    assert "<script>" not in tables.markdown(made)
    assert "[x](" not in tables.markdown(made)


def test_the_table_prints(made, capsys):
    tables.print_board(made)
    out = capsys.readouterr().out
    assert BASELINE in out
    assert "calm" in out
    assert "Geometric mean over horizons 4, 8" in " ".join(out.split())

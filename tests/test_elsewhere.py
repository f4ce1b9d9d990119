"""Orders on several tasks, and beside results that others published."""

from __future__ import annotations

import dataclasses
import math

import pytest

from optimizers.contract import registry
from sweeps.board import across, entries, external, tables
from sweeps.board.entries import BASELINE
from sweeps.board.external import Published
from sweeps.results.comparison import Comparison
from sweeps.results.orders import Order
from sweeps.results.summary import row_of


def comparison(board_folder, factors=None):
    """The tiny board's entries; losses of an optimizer are multiplied by its factor."""
    found, _ = entries.load(board_folder, ["tiny"])
    rows = [row_of(e.study, e.results, h) for e in found for h in e.horizons]
    return Comparison(BASELINE, [scaled(row, (factors or {}).get(row.opt, 1.0)) for row in rows])


def scaled(row, factor):
    by_seed = {seed: loss * factor for seed, loss in row.by_seed.items()}
    mean = row.mean and row.mean | {"probe_loss": row.mean["probe_loss"] * factor}
    return dataclasses.replace(row, by_seed=by_seed, mean=mean)


def test_two_tasks_stand_side_by_side(board_folder):
    here = comparison(board_folder)
    best = max(here.order().scores, key=lambda name: here.order().scores[name])
    there = comparison(board_folder, {best: 4.0})
    found = across.side_by_side({"one": here, "other": there})
    assert found["tasks"] == ["one", "other"]
    assert {row["optimizer"] for row in found["rows"]} == {*here.ranks()} & {*there.ranks()}
    for row in found["rows"]:
        assert [place["rank"] for place in row["places"]] == [
            one.ranks()[row["optimizer"]] for one in (here, there)
        ]
    assert (
        found["sentences"][0].startswith("Order on one and on other: ")
        or "too few" in (found["sentences"][0])
    )
    names, rows = tables.across_cells(found)
    assert names[1:] == ["one, rank: speed-up", "other, rank: speed-up"]
    assert all(": " in cell for row in rows for cell in row[1:])
    assert across.side_by_side({"one": here}) is None


def test_the_published_files_are_complete_and_name_rules_of_ours():
    published = external.load()
    assert len(published) == 3
    ours = {*registry.builtins()}
    for one in published:
        names = {name for figures in one.results.values() for name in figures}
        assert len(names & ours) >= 3
        assert all(x > 0 for figures in one.results.values() for x in figures.values())
        assert one.source
        assert one.cite


def test_language_models_agree_with_each_other_as_an_independent_audit_found():
    """Order at 130 million parameters and at 520 million: tau 0.81 (0.56 to 0.96)."""
    (models,) = (one for one in external.load() if one.name.startswith("Language"))
    from statistics import fmean

    from sweeps.results import orders

    of = models.orders()
    taus = [orders.tau(of[f"130m x{n}"], of[f"520m x{n}"]) for n in (1, 2, 4, 8)]
    assert fmean(taus) == pytest.approx(0.81, abs=0.03)
    assert external.repeatability(models) == pytest.approx(fmean(taus), abs=0.05)


def test_pairs_that_stand_otherwise_are_named_with_their_gaps():
    order = Order(
        {"a": 0.3, "b": 0.2, "c": 0.1, "d": 0.0},
        separated=frozenset({("a", "d"), ("b", "d"), ("a", "c")}),
    )
    models = Published(
        "Models",
        "Somebody 2025",
        "table 1",
        "loss",
        "the loss of each",
        True,
        {"small": {"a": 3.0, "b": 2.9, "c": 2.8, "d": 3.3}, "large": {"a": 2.0, "c": 2.2}},
    )
    (found,) = external.compare("digits", order, [models])
    assert [one["optimizers"] for one in found["settings"]] == [["a", "b", "c", "d"], ["a", "c"]]
    assert found["settings"][0]["tau"] == pytest.approx(0.0)
    # a and c: log 2.8 / 3.0 at small and log 2.2 / 2.0 at large, together in favour of a.
    assert "Pairs of them that differ significantly on digits: 3; in the same order" in str(found)
    assert not found["contradictions"]
    worse = dataclasses.replace(models, results={"small": models.results["small"]})
    (found,) = external.compare("digits", order, [worse])
    gap = 1 - math.exp(math.log(2.8) - math.log(3.0))
    assert found["contradictions"] == [
        "a's speed-up on digits is 1.221 times c's; Somebody 2025: c has the better loss in 1 of 1 "
        f"settings, by {gap:.1%} on average."
    ]


def test_a_publication_without_our_optimizers_is_left_out():
    nothing = Published("Models", "x", "y", "z", "z", True, {"one": {"other": 1.0, "another": 2.0}})
    assert external.compare("digits", Order({"a": 1.0, "b": 0.0}), [nothing]) == []

"""sweeps/evidence.py: verdicts on made-up boards and runs, the page, and the command."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from support import run_results
from support.paths import ROOT
from sweeps.board import entries
from sweeps.board.entries import BASELINE
from sweeps.claims import (
    finding,
    gains,
    measures,
    of_boards,
    of_runs,
    reach,
)
from sweeps.claims.finding import Finding

LADDER = (125, 250, 500, 1000, 2000, 4000)


def law(horizon):
    return 0.025 + 0.063 * (horizon / 1000) ** -0.69


def board(speedups, horizons=LADDER, task="digits", rise=None):
    """Entries whose losses are the baseline's at a multiple of the steps.

    rise: name of an optimizer whose loss rises at the end.
    """
    made = []
    for name, speedup in {BASELINE: 1.0, **speedups}.items():
        longer = (*horizons, 8000, 16_000) if name == BASELINE else horizons
        losses = {h: law(h * speedup) for h in longer}
        if name == rise:
            losses[horizons[-1]] = 2 * losses[horizons[-2]]
        found = run_results.loaded(run_results.study(name, task=task), losses, seeds=range(1, 6))
        made.append(
            SimpleNamespace(
                study=found.study, results=tuple(found.results), horizons=list(longer), cost=None
            )
        )
    return made


def test_a_ratio_is_welchs(tmp_path):
    rng = np.random.default_rng(0)
    a, b = np.exp(rng.normal(0.1, 0.1, 5)), np.exp(rng.normal(0.0, 0.2, 4))
    found = measures.ratio(a, b)
    test = stats.ttest_ind(np.log(a), np.log(b), equal_var=False)
    assert found.value == pytest.approx(stats.gmean(a) / stats.gmean(b))
    assert (found.low > 1) == (test.pvalue < 0.05 and found.value > 1)


def test_too_few_runs_are_one_message():
    of = run_results.study("mine")
    with pytest.raises(UserError, match=r"0 of 3 final runs at 250 steps ended well.*diverged"):
        measures.at_end(run_results.failed(of, 250, "nan").results, 250, "test_kl")


def test_patience_holds_if_every_doubling_pays():
    found = gains.patience({"digits": board({"muon": 1.3})})
    assert found.verdict == "holds"
    assert "Of 24 doublings" in found.found
    risen = gains.patience({"digits": board({"muon": 1.3}, rise="muon")})
    assert risen.verdict == "holds in part"
    worst = risen.table[2]  # clean-image KL
    assert (worst[2:5], worst[-1]) == (["12", "11", "11"], "muon, 2,000 to 4,000")
    assert worst[5].startswith("2.000 [")
    assert gains.patience({}).verdict == "not known yet"


@pytest.mark.parametrize(
    ("speedup", "verdict"), [(1.3, "does not hold here"), (4.0, "holds"), (None, "not known yet")]
)
def test_a_quarter_of_the_steps(speedup, verdict):
    rivals = {"shampoo": speedup} if speedup else {"muon": 1.2}
    horizons = LADDER[:5]  # 4 x 2,000 lies on the baseline's curve
    found = gains.quarter({"digits": board(rivals, horizons)})
    assert found.verdict == verdict


RIVALS = {f"rule{i}": 1.1 + 0.15 * i for i in range(6)}


def test_orders_that_stay_and_orders_that_turn():
    same = reach.length({"digits": board(RIVALS)})
    assert same.verdict == "holds"
    assert same.table[1][2] == "1.00 [1.00, 1.00]"
    two = {"digits": board(RIVALS), "fashion": board(RIVALS, task="fashion")}
    assert reach.tasks(two).verdict == "holds"
    turned = dict(zip(RIVALS, reversed(RIVALS.values()), strict=True))
    found = reach.tasks({"digits": board(RIVALS), "fashion": board(turned, task="fashion")})
    assert found.verdict == "does not hold here"
    assert any(
        "rule5's speed-up is 1.682 times rule0's on digits" in line for line in found.contradictions
    )
    alone = reach.tasks({"digits": board(RIVALS)})
    assert (alone.verdict, alone.found) == ("not known yet", "Only one task has entries.")


def test_three_optimizers_decide_nothing_about_an_order():
    assert reach.length({"digits": board({"muon": 1.3})}).verdict == "not known yet"


def test_the_same_order_of_four_optimizers_is_shown_in_part():
    few = dict(list(RIVALS.items())[:4])
    assert reach.length({"digits": board(few)}).verdict == "holds in part"


def test_published_results_are_compared_setting_by_setting():
    found = reach.published({"digits": board({"muon": 1.4, "soap": 1.35, "nadamw": 1.15})})
    assert found.verdict in ("holds", "holds in part")
    (row,) = (row for row in found.table if row[0].startswith("Wen, Hall, Ma, Liang 2025"))
    assert row[1:4] == ["digits", "4", "18"]


def test_a_finding_is_read_as_it_was_written(tmp_path):
    one = Finding(
        "one",
        "A claim.",
        "holds",
        "Three.",
        (("a", "b"), ("1", "2")),
        ["Four is not."],
        "it does",
        "By hand.",
        {},
        90,
    )
    finding.write(tmp_path, one)
    (read,) = finding.read(tmp_path).values()
    assert json.loads(read.to_json()) == json.loads(one.to_json())
    page = finding.markdown([read])
    assert "| [A claim.](#one) | holds |" in page
    assert "## one\n\n**A claim.** Holds. Three.\n\n| a | b |" in page
    assert (
        "| 1 | 2 |\n\nAgainst it:\n\n- Four is not.\n\nIt holds if it does. By hand. It took 2 min."
        in page
    )


def test_the_committed_page_says_what_its_files_and_the_leaderboards_say():
    stored = finding.read(ROOT / "docs" / "evidence")
    known = [*of_boards.CLAIMS, *of_runs.EXPERIMENTS]
    page = finding.markdown([stored[name] for name in known if name in stored])
    assert (ROOT / "docs" / "evidence.md").read_text() == page
    readme = (ROOT / "README.md").read_text()
    assert f"{finding.BEGIN}\n\n{finding.quoted(stored)}\n\n{finding.END}" in readme
    boards = {task: found for task in catalogue.names() if (found := entries.load(names=[task])[0])}
    for name, claim in of_boards.CLAIMS.items():
        again = json.loads(claim(boards).to_json())
        assert json.loads(stored[name].to_json()) == again, f"run evidence.py --claim={name}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--claim=patient"], "--claim=patient is not a claim: the claims are patience, quarter"),
        (["--claim=patience", "--write=nowhere"], "--write=nowhere is not a folder"),
        (["--claim=patience", "--readme=nowhere"], "--readme=nowhere is not a file"),
    ],
)
def test_a_mistake_is_one_message(script, arguments, message):
    done = script("evidence", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.process
def test_a_quick_run_tests_every_claim_and_writes_nothing(script, tmp_path):
    done = script("evidence", "--quick", f"--write={tmp_path}")
    assert done.returncode == 0, done.stderr
    for name in (*of_boards.CLAIMS, *of_runs.EXPERIMENTS):
        assert f"\n{name}: " in f"\n{done.stdout}"
    assert not (tmp_path / "evidence.md").exists()

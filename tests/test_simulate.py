"""sweeps/simulate.py: surfaces, searches on them, boards of their results, and the command."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from distill_bench import command
from optimizers.contract.domains import Choice, Log, Uniform
from sweeps import simulate
from sweeps.planning import sampling
from sweeps.planning.study import Result, Study, Trial
from sweeps.results import store
from sweeps.results.trial_files import TrialWriter
from sweeps.simulation import surfaces, tuning
from sweeps.simulation.tuning import Bank, Noise, Procedure

SPACE = {"lr": Log(1e-3, 1.0), "decay": Uniform(0.0, 1.0)}
BEST = {125: 0.4, 250: 0.5}  # of the learning rate's fraction, by horizon
FLAGS = simulate.FLAGS  # as defined, before a test parses a copy
QUIET = Noise(best=0.001, growth=0.0, common=0.0)


def study(space=SPACE):
    described = {name: sampling.describe_domain(domain) for name, domain in space.items()}
    return Study("dots", "f" * 16, "mine", "a" * 64, described, {}, {"jax": "1"})


def trials(space=SPACE, count=40, noise=0.01):
    """A bowl whose optimum moves with the horizon; the last trial of each rung fails."""
    rng, found, of = np.random.default_rng(0), [], study(space)
    for horizon, best in BEST.items():
        points = sampling.spread(len(space), count, f"{horizon}")
        for i, point in enumerate(points):
            trial = Trial(of.id, sampling.at(space, point), horizon, 0)
            place = np.array(sampling.fractions(space, trial.hparams))
            log = 2 * ((place - [best, 0.5]) ** 2).sum() + noise * rng.normal()
            final = {"probe_loss": 25 / horizon * math.exp(log)}
            ok = i < count - 1
            found.append(
                Result(
                    trial,
                    "ok" if ok else "diverged",
                    horizon,
                    points=((horizon, final),) if ok else (),
                    losses=(final["probe_loss"],) * horizon if ok else (),
                )
            )
    return of, found


@pytest.fixture(scope="module")
def bowl():
    found = surfaces.trials_of(*trials())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def smooth(bowl):
    return surfaces.surface(bowl, "smooth", surfaces.fit(bowl, "smooth"))


def test_failed_trials_are_left_out_and_losses_are_relative_to_their_horizon(bowl):
    assert len(bowl.heights) == 78
    for horizon in BEST:
        here = bowl.heights[bowl.horizons == horizon]
        assert -0.05 < here.min() <= 0 < here.max() <= surfaces.CAP


def test_too_few_trials_make_no_surface():
    of, results = trials(count=6)
    assert surfaces.trials_of(of, results) is None
    assert surfaces.trials_of(study({}), results) is None


def test_a_smooth_surface_has_the_optimum_and_the_noise_of_its_trials(smooth):
    for horizon, best in BEST.items():
        assert smooth.excess(np.array([[best, 0.5]]), horizon) < 0.01
        points = np.array([[best + 0.3, 0.5], [best, 0.1]])
        assert smooth.excess(points, horizon) == pytest.approx([0.18, 0.32], abs=0.03)
    assert smooth.fit.noise == pytest.approx(0.01, rel=0.5)


def test_a_smooth_surface_is_not_lowest_where_nothing_was_tried(bowl):
    near = np.abs(bowl.points - 0.3).max(1) < 0.3
    noise = np.random.default_rng(0).normal(0, 0.02, near.sum())
    heights = 0.2 * np.sin(5 * bowl.points[near]).sum(1) + noise  # it falls beyond the last trials
    tried = replace(bowl, points=bowl.points[near], horizons=bowl.horizons[near], heights=heights)
    one = surfaces.surface(tried, "smooth", surfaces.fit(tried, "smooth"))
    everywhere = sampling.spread(2, 512, "any")
    lowest = everywhere[one.excess(everywhere, 125).argmin()]
    assert np.linalg.norm(tried.points - lowest, axis=1).min() < 0.2


def test_beyond_its_trials_a_surface_stays_as_it_is(smooth):
    points = sampling.spread(2, 16, "any")
    assert np.array_equal(smooth.excess(points, 250), smooth.excess(points, 16000))
    assert not np.array_equal(smooth.excess(points, 125), smooth.excess(points, 250))


def test_rough_surfaces_go_through_the_trials_and_differ_elsewhere(bowl):
    kernel = surfaces.fit(bowl, "rough")
    assert kernel.noise == surfaces.ROUGH_NOISE
    first, second = (surfaces.surface(bowl, "rough", kernel, draw) for draw in (0, 1))
    here = bowl.horizons == 125
    for one in (first, second):
        gaps = one.height(bowl.points[here], math.log2(125)) - bowl.heights[here]
        assert np.std(gaps) < 2 * kernel.noise
    again = surfaces.surface(bowl, "rough", kernel, 0)
    points = sampling.spread(2, 64, "any")
    assert np.array_equal(first.excess(points, 125), again.excess(points, 125))
    assert np.abs(first.excess(points, 125) - second.excess(points, 125)).max() > 0.005


def test_the_lowest_point_of_a_choice_is_one_of_its_values():
    space = {"lr": Log(1e-3, 1.0), "kind": Choice("a", "b")}
    found = surfaces.trials_of(*trials(space))
    assert found is not None
    one = surfaces.surface(found, "smooth", surfaces.fit(found, "smooth"))
    # The bowl's middle, between the two values, cannot be tried.
    reachable = np.array([[u, v] for u in np.linspace(0, 1, 101) for v in (0.25, 0.75)])
    assert one.excess(reachable, 125).min() < 1e-3


def test_a_search_ends_near_the_optimum_and_a_longer_one_nearer(smooth):
    noise = Noise()
    few, many = (
        np.mean([tuning.regrets(smooth, Procedure(n, 3), noise, f"{i}") for i in range(8)])
        for n in (8, 48)
    )
    assert 0 <= many < few < 0.1


def test_searches_of_other_names_have_other_luck(smooth):
    first, again, other = (
        tuning.regrets(smooth, Procedure(12, 2), Noise(), name) for name in ("a", "a", "b")
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_proposals_each_rung_has_points_of_the_rung_below():
    for proposals in (True, False):
        one = Procedure(16, 2, proposals).search(tuple(SPACE.items()), "mine")
        losses = {}
        rungs = {}
        for stage, points in one.known(losses):
            for point in points:
                place = np.array(sampling.fractions(SPACE, point))
                key = json.dumps(point, sort_keys=True)
                losses[stage.horizon, key] = math.exp(((place - 0.4) ** 2).sum())
                rungs.setdefault(stage.horizon, []).append(key)
        assert (set(rungs[250]) <= set(rungs[125])) is not proposals
        assert one.counts() == {125: 16, 250: 8}


def test_kept_searches_are_not_made_again(smooth, tmp_path):
    made = []
    bank = Bank(Noise(), 0, tmp_path, lambda: made.append(1))
    procedure = Procedure(8, 2)
    assert bank.missing(smooth, procedure, 3) == 3
    three = bank.regrets(smooth, procedure, 3)
    assert (len(made), bank.missing(smooth, procedure, 5)) == (3, 2)
    five = bank.regrets(smooth, procedure, 5)
    assert (len(made), five.shape) == (5, (5, 2))
    assert np.array_equal(five[:3], three)
    assert np.array_equal(Bank(Noise(), 0).regrets(smooth, procedure, 5), five)
    assert Bank(Noise(), 1, tmp_path).missing(smooth, procedure, 5) == 5


def test_luck_is_measured_within_surfaces():
    rng = np.random.default_rng(0)
    groups = [
        level + 0.01 * rng.normal(size=(4000, 1)) + 0.02 * rng.normal(size=(4000, 3))
        for level in (0.1, 0.3)
    ]
    found = tuning.luck(groups)
    assert found.mean == pytest.approx(0.2, abs=1e-3)
    assert found.tau == pytest.approx(math.hypot(0.01, 0.02), rel=0.05)
    assert found.rho == pytest.approx(0.2, abs=0.03)
    assert found.overall == pytest.approx(math.sqrt(0.01**2 + 0.02**2 / 3), rel=0.05)


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command in this process. Returns its exit code and what it wrote."""

    def run(*arguments):
        values = copy.deepcopy(FLAGS)
        monkeypatch.setattr(simulate, "FLAGS", values)
        code = command.run(simulate.main, values, "", ["it", *arguments], after_interrupt="")
        return code, capsys.readouterr()

    return run


@pytest.fixture
def runs(tmp_path):
    """A folder of runs."""
    of, results = trials()
    folder = store.save_study(tmp_path / "runs", of, "./mine.py", {}, print)
    for result in results:
        writer = TrialWriter(folder / result.trial.name, result.trial)
        writer.start()
        writer.losses(1, np.array(result.losses))
        for step, metrics in result.points:
            writer.point(step, metrics)
        writer.finish(result.status, result.step, None, {})
    return tmp_path / "runs"


def test_the_command_prints_one_object_and_the_same_again(run, runs, tmp_path):
    arguments = [f"--outdir={runs}", "--task=dots", "--quick", "--trials=8", "--boards=3"]
    arguments += ["--replicates=3", f"--bank={tmp_path / 'bank'}"]
    code, first = run(*arguments, "--format=json")
    assert code == command.OK, first.err
    figures = json.loads(first.out)
    assert figures["coverage"].keys() == {"1.0", "1.1", "1.4"}
    for share in (*figures["coverage"].values(), figures["false_separation_12"]):
        assert 0 <= share <= 1
    assert 0 <= figures["false_winner_2"] <= 1
    assert 0 < figures["regret_percent"] < 20
    assert 0 < figures["regret_percent_rough"] < 40
    # 8 trials of 125 steps, 4 of 250, and no rung has fewer than 3.
    assert figures["trial_steps"] == 8 * 125 + 4 * 250 + 3 * (500 + 1000 + 2000)
    assert (figures["trials"], figures["draws"]) == (8, simulate.QUICK["draws"])
    code, again = run(*arguments, "--format=json")
    assert json.loads(again.out) == figures
    code, table = run(*arguments)
    assert code == command.OK
    assert f"{figures['regret_percent']:.3f}" in table.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--outdir={runs} --entries={runs}", "leave one out"),
        ("--outdir={runs}", "no study of the task 'digits' with enough tuning trials"),
        ("--entries=no_such_folder", "--entries=no_such_folder is not a folder"),
        ("--outdir=no_such_folder", "--outdir=no_such_folder is not a folder"),
        ("--replicates=1", "--replicates=1"),
    ],
)
def test_a_mistake_is_one_message(run, runs, arguments, message):
    code, written = run(*arguments.format(runs=runs).split())
    assert (code, written.err.startswith("error: ")) == (command.MISUSED, True)
    assert message in written.err

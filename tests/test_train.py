from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distill_bench.data import dataset
from distill_bench.networks import bit
from distill_bench.tasks import catalogue
from distill_bench.tasks.parameters import load_teachers
from distill_bench.training import lane_state
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Compiled, Finished, Losses, Point, Snapshot
from distill_bench.training.exams import CURVE, HELDOUT_CURVE, METRICS
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import Lane
from distill_bench.training.source import chunk_steps, init_student
from distill_bench.training.train import exams, train
from distill_bench.views import step_views
from distill_bench.views.originals import Stacked


def sgd(hparams, horizon):
    return optax.sgd(lambda count: hparams["lr"] * (1 - count / horizon), momentum=0.9)


def adam(hparams, horizon):
    return optax.adam(hparams["lr"])


def run(engine, lanes):
    """Returns the losses, points and end of each lane, and the event Compiled."""
    losses = [[] for _ in lanes]
    points = [{} for _ in lanes]
    ends = [None] * len(lanes)
    compiled = None
    for event in train(engine, lanes):
        match event:
            case Losses(lane, first, values):
                assert first == len(losses[lane]) + 1
                losses[lane] += values.tolist()
            case Point(lane, step, metrics):
                points[lane][step] = metrics
            case Finished(lane):
                assert ends[lane] is None
                ends[lane] = event
            case Compiled():
                compiled = event
    assert all(ends)
    return losses, points, ends, compiled


@pytest.fixture(scope="module")
def wide_engine(tiny_task):
    """On all eight devices."""
    return open_engine(tiny_task, make_layout(jax.devices()))


def test_a_lane_equals_the_same_trial_alone_bit_for_bit(tiny_engine):
    lanes = [
        Lane(sgd, {"lr": 0.1}, 70, seed=0),
        Lane(adam, {"lr": 0.01}, 110, seed=3),
        Lane(sgd, {"lr": 0.3}, 110, seed=3),
        Lane(sgd, {"lr": 0.1}, 110, seed=0),
        Lane(adam, {"lr": 0.03}, 25, seed=1),
    ]
    losses, points, ends, _ = run(tiny_engine, lanes)
    assert [end.status for end in ends] == ["ok"] * 5
    for i, lane in enumerate(lanes):
        assert len(losses[i]) == lane.horizon
        assert sorted(points[i]) == list(exams(lane.horizon, final=True))
        alone_losses, alone_points, _, _ = run(tiny_engine, [lane])
        assert alone_losses[0] == losses[i]
        assert alone_points[0] == points[i]


def test_training_agrees_with_a_plain_loop(tiny_task, tiny_engine):
    """A step: its views, the teacher's logits, the KL and its gradient, one optax update."""
    images = jnp.asarray(dataset.load_embedded(tiny_task.dataset)[0].images)
    teacher = load_teachers(tiny_task)[0]
    lane = Lane(sgd, {"lr": 0.2}, 12, seed=5)
    params = init_student(tiny_task, 5)
    rule = sgd(lane.hparams, 12)
    state = rule.init(params)

    @jax.jit
    def step_of(params, state, step):
        views = step_views.step_views(tiny_task, Stacked(images), 5, step).student

        def loss_of(params):
            return kl_divergence(
                bit.apply(tiny_task.teacher, teacher, views),
                bit.apply(tiny_task.student, params, views),
                tiny_task.temperature,
            )

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, state = rule.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    expected = []
    for step in range(12):
        params, state, loss = step_of(params, state, step)
        expected.append(float(loss))
    losses, points, _, _ = run(tiny_engine, [lane])
    np.testing.assert_allclose(losses[0], expected, rtol=2e-4)

    # The probe loss, from newly made views.
    views = step_views.probe_views(tiny_task, Stacked(images)).reshape(-1, 8, 8, 1)
    probe = kl_divergence(
        bit.apply(tiny_task.teacher, teacher, views),
        bit.apply(tiny_task.student, params, views),
        tiny_task.temperature,
    )
    assert points[0][12]["probe_loss"] == pytest.approx(float(probe), rel=1e-3)
    assert set(points[0][12]) == {CURVE, HELDOUT_CURVE, *METRICS}


@pytest.mark.parametrize(
    ("name", "steps"), [("digits", 25), ("flowers102@synthetic@r32@b8", 4), ("flowers102", 1)]
)
def test_a_large_teacher_makes_few_steps_at_once_on_a_cpu(name, steps):
    layout = make_layout(jax.devices()[:2])
    assert chunk_steps(catalogue.get(name), layout) == 2 * steps


def test_one_device_gives_the_losses_of_two(tiny_task, tiny_engine):
    one = open_engine(tiny_task, make_layout(jax.local_devices()[:1]))
    lanes = [Lane(sgd, {"lr": 0.1}, 60, seed) for seed in (0, 1)]
    for a, b in zip(run(one, lanes)[0], run(tiny_engine, lanes)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_every_seed_trains_differently_also_zero_and_the_largest(tiny_engine):
    losses, _, _, _ = run(
        tiny_engine, [Lane(sgd, {"lr": 0.1}, 5, seed) for seed in (0, 1, 2**31 - 1)]
    )
    assert len({tuple(values) for values in losses}) == 3


@pytest.mark.long
def test_all_trials_and_horizons_of_a_rule_share_a_compilation(wide_engine):
    island = dataclasses.replace(wide_engine.islands[0], rules={})
    engine = dataclasses.replace(wide_engine, islands=(island,))
    _, _, ends, compiled = run(
        engine, [Lane(sgd, {"lr": lr}, h, 0) for lr in (0.1, 0.2, 0.3) for h in (3, 7)]
    )
    assert (compiled.rules, len(island.rules)) == (1, 1)
    assert [end.status for end in ends] == ["ok"] * 6
    assert run(engine, [Lane(sgd, {"lr": 0.4}, 9, seed) for seed in (1, 2, 3)])[3].rules == 0


def test_a_builder_that_needs_a_value_is_compiled_for_each_value_and_reported(tiny_engine):
    def branching(hparams, horizon):
        return optax.chain(
            optax.sgd(hparams["lr"]),
            optax.add_decayed_weights(0.1) if hparams["decay"] > 0.5 else optax.identity(),
        )

    lanes = [Lane(branching, {"lr": 0.1, "decay": decay}, 4, 0) for decay in (0.0, 1.0, 0.0)]
    losses, _, ends, compiled = run(tiny_engine, lanes)
    assert compiled.rules == 2
    assert compiled.static[0] == ("decay",)
    assert [end.status for end in ends] == ["ok"] * 3
    assert losses[0] == losses[2] != losses[1]


def test_a_nan_in_one_lane_does_not_change_another(tiny_engine):
    def poisoned(hparams, horizon):
        def update(updates, count, params=None):
            factor = jnp.where((count == 6) & (hparams["poison"] > 0), jnp.nan, -hparams["lr"])
            return jax.tree.map(lambda u: factor * u, updates), count + 1

        return optax.GradientTransformation(lambda params: jnp.int32(0), update)

    clean = [Lane(poisoned, {"lr": 0.1, "poison": 0.0}, 60, 0), Lane(sgd, {"lr": 0.1}, 60, 0)]
    losses, points, ends, _ = run(
        tiny_engine, [clean[0], Lane(poisoned, {"lr": 0.1, "poison": 1.0}, 60, 0), clean[1]]
    )
    assert [end.status for end in ends] == ["ok", "diverged", "ok"]
    assert ends[1].step == 8  # the seventh update is NaN, and so the eighth loss
    assert "step 8 is nan" in ends[1].detail
    assert len(losses[1]) == 7
    assert points[1] == {step: point for step, point in points[0].items() if step <= 6}
    alone = run(tiny_engine, clean)
    assert alone[0] == [losses[0], losses[2]]
    assert alone[1] == [points[0], points[2]]


def test_a_lane_with_parameters_that_are_not_finite_has_diverged_despite_finite_losses(tiny_engine):
    events = list(train(tiny_engine, [Lane(sgd, {"lr": 1e30}, 12, 0, final=False)]))
    assert [np.isfinite(event.values).all() for event in events if isinstance(event, Losses)] == [
        True
    ]
    assert events[-1] == Finished(0, "diverged", 12, "after step 12 the parameters are not finite")


def raises_in(stage):
    def fail(*args):
        raise RuntimeError(f"my own error in {stage}")

    def build(hparams, horizon):
        if stage == "build":
            fail()
        rule = optax.sgd(hparams["lr"])
        return optax.GradientTransformation(
            fail if stage == "init" else rule.init, fail if stage == "update" else rule.update
        )

    return build


@pytest.mark.parametrize("stage", ["build", "init", "update"])
def test_an_exception_of_a_rule_ends_its_own_lanes_only(tiny_engine, stage):
    lanes = [Lane(raises_in(stage), {"lr": 0.1}, 60, 0), Lane(sgd, {"lr": 0.1}, 60, 0)]
    _, _, ends, _ = run(tiny_engine, lanes)
    assert [end.status for end in ends] == ["crashed", "ok"]
    assert f"my own error in {stage}" in ends[0].detail
    assert __file__ in ends[0].detail


def test_an_exception_while_a_program_runs_ends_its_own_lanes_only(tiny_engine):
    def host_error(hparams, horizon):
        def fail(x):
            raise RuntimeError("my own error at run time")

        def update(updates, state, params=None):
            return jax.tree.map(
                lambda u: jax.pure_callback(fail, jax.ShapeDtypeStruct(u.shape, u.dtype), u),
                updates,
            ), state

        return optax.GradientTransformation(lambda params: (), update)

    _, _, ends, _ = run(
        tiny_engine, [Lane(host_error, {"lr": 0.1}, 10, 0), Lane(sgd, {"lr": 0.1}, 60, 0)]
    )
    assert [end.status for end in ends] == ["crashed", "ok"]
    assert "my own error at run time" in ends[0].detail


@pytest.mark.parametrize("horizon", [1, 2, 13, 99, 125, 250, 4000])
def test_a_final_run_has_a_log_spaced_curve_and_is_measured_in_full_at_its_end(horizon):
    measured = exams(horizon, final=True)
    steps = list(measured)
    assert steps[-1] == horizon
    assert list(measured.values()) == [*["curve"] * (len(steps) - 1), "all"]
    if horizon >= 99:
        assert len(steps) >= 12
        ratios = np.divide(steps[1:], steps[:-1])
        assert ratios[-6:] == pytest.approx(100 ** (1 / 12), rel=0.1)


def test_a_tuning_trial_is_measured_once_by_its_probe_loss_alone(tiny_engine):
    lanes = [Lane(sgd, {"lr": 0.1}, 60, 0, final=final) for final in (True, False)]
    losses, points, _, _ = run(tiny_engine, lanes)
    assert losses[0] == losses[1]
    assert list(points[1]) == [60]
    assert points[1][60] == {name: points[0][60][name] for name in (CURVE, "probe_loss")}


def noisy(hparams, horizon):
    """A rule whose state holds a random key, bfloat16 moments and counts."""
    return optax.chain(
        optax.scale_by_adam(mu_dtype=jnp.bfloat16),
        optax.add_noise(0.01, 0.5, key=jax.random.key(7)),
        optax.scale(-0.01),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "stops", [{2, 3}, *(pytest.param(s, marks=pytest.mark.long) for s in ({1}, {1, 2, 3, 4}))]
)
def test_a_resumed_lane_ends_with_the_same_bits(tiny_engine, wide_engine, tmp_path, stops):
    lanes = [
        Lane(noisy, {}, 130, 2),
        Lane(sgd, {"lr": 0.1}, 230, 0),
        Lane(sgd, {"lr": 0.2}, 70, 1),
        Lane(noisy, {}, 230, 2),
    ]
    losses, points, _, _ = run(tiny_engine, lanes)
    chunk = iter(range(100))
    for event in train(tiny_engine, lanes, snapshot_due=lambda: next(chunk) in stops):
        if isinstance(event, Snapshot):
            lane_state.save(tmp_path / f"{event.lane}.npz", event.saved, {"lane": event.lane})
    resume = {
        i: lane_state.load(tmp_path / f"{i}.npz", {"lane": i})
        for i in range(4)
        if (tmp_path / f"{i}.npz").exists()
    }
    assert resume
    again, more, ends = [[] for _ in lanes], [{} for _ in lanes], []
    for event in train(wide_engine, lanes, resume):
        match event:
            case Losses(lane, first, values):
                assert first == (resume[lane].step if lane in resume else 0) + len(again[lane]) + 1
                again[lane] += values.tolist()
            case Point(lane, step, metrics):
                more[lane][step] = metrics
            case Finished():
                ends.append(event.status)
    assert ends == ["ok"] * 4
    for i in range(4):
        step = resume[i].step if i in resume else 0
        assert again[i] == losses[i][step:]
        assert more[i] == {s: m for s, m in points[i].items() if s > step}


def test_a_checkpoint_of_another_owner_is_refused_with_the_reason(tmp_path, tiny_engine):
    path = tmp_path / "state.npz"
    leaves = (np.float32([1, 2]), np.arange(3), np.asarray(jnp.ones(2, jnp.bfloat16)))
    owner = {"fingerprint": "a", "source": "b"}
    lane_state.save(path, lane_state.Saved(5, leaves), owner)
    loaded = lane_state.load(path, owner)
    assert loaded.step == 5
    for a, b in zip(leaves, loaded.leaves, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    with pytest.raises(lane_state.BadCheckpoint, match="belongs to another source"):
        lane_state.load(path, owner | {"source": "c"})
    content = path.read_bytes()
    for torn in (content[:-30], content[: len(content) // 2], b"", b"PK"):
        path.write_bytes(torn)
        with pytest.raises(lane_state.BadCheckpoint, match="cannot be read"):
            lane_state.load(path, owner)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"mapping": "loop", "lanes_per_device": 3},
        pytest.param({"mapping": "vmap", "lanes_per_device": 3}, marks=pytest.mark.long),
        pytest.param({"batch_shards": 2}, marks=pytest.mark.long),
    ],
)
def test_every_layout_trains_the_same_lanes(tiny_task, tiny_engine, given):
    """Lanes of several seeds and horizons, more or fewer than a dispatch has places.

    One rule has a branch.
    """

    def branching(hparams, horizon):
        return optax.chain(
            optax.conditionally_transform(optax.scale(3.0), lambda step: step % 3 == 0),
            optax.sgd(hparams["lr"]),
        )

    lanes = [
        *(Lane(adam, {"lr": lr}, 60, seed=0) for lr in (0.01, 0.02, 0.03, 0.04)),
        Lane(adam, {"lr": 0.01}, 110, seed=1),
        Lane(branching, {"lr": 0.03}, 60, seed=0),
        Lane(branching, {"lr": 0.01}, 25, seed=0),
    ]
    losses, points, ends, _ = run(tiny_engine, lanes)
    other_losses, other_points, other_ends, compiled = run(
        open_engine(tiny_task, make_layout(jax.devices()[:2], LayoutOptions(**given))), lanes
    )
    assert [end.status for end in other_ends] == [end.status for end in ends] == ["ok"] * len(lanes)
    assert compiled.rules == 2
    for i in range(len(lanes)):
        assert len(other_losses[i]) == len(losses[i])
        np.testing.assert_allclose(other_losses[i][:10], losses[i][:10], rtol=1e-4)
        assert points[i].keys() == other_points[i].keys()


def test_points_carry_the_diagnostics_of_the_rules_state(tiny_engine):
    lanes = [Lane(adam, {"lr": 0.01}, 50, 0, final=False), Lane(sgd, {"lr": 0.1}, 25, 0)]

    def steps_taken(state, updates, params, gradients):
        return {"steps": state[0].count} if isinstance(state[0], optax.ScaleByAdamState) else {}

    reported = {
        (e.lane, e.step): e.diagnostics
        for e in train(tiny_engine, lanes, observe=steps_taken)
        if isinstance(e, Point)
    }
    assert reported == {
        (0, 50): {"steps": 50.0},
        **{(1, step): {} for step in exams(25, final=True)},
    }

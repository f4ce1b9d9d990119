"""Diagnostics: what they are of, and that training is the same without them."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from distill_bench.networks import network
from distill_bench.training.diagnose import named, norms
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Finished, Losses, Point, Student
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.training.losses import kl_divergence
from distill_bench.training.rules import Contract, Lane
from distill_bench.training.train import train
from optimizers import optimizer
from support.stores import rows

STEPS, RATE = 12, 0.1


def sgd(hparams, horizon):
    return optax.sgd(hparams["lr"])


def by_layer(state, updates, params):
    return {"layer": jax.tree.map(lambda u: optax.tree.norm(u), updates)}


def lanes(**contract):
    given = Contract(**contract)
    return [Lane(sgd, {"lr": rate}, STEPS, 0, given) for rate in (RATE, 2 * RATE)]


def run(engine, lanes, **options):
    events = list(train(engine, lanes, **options))
    losses = [e.values for e in events if isinstance(e, Losses)]
    points = {(e.lane, e.step): e for e in events if isinstance(e, Point)}
    return events, losses, points


LAYOUTS = [
    LayoutOptions(devices=1, mapping="dispatch"),
    LayoutOptions(devices=2, mapping="vmap", lanes_per_device=2),
    LayoutOptions(devices=2, batch_shards=2),
]


@pytest.mark.parametrize(
    "layout",
    [LAYOUTS[0], *(pytest.param(layout, marks=pytest.mark.long) for layout in LAYOUTS[1:])],
    ids=["dispatch", "vmap", "shards"],
)
def test_they_are_of_the_gradient_on_the_first_probe_views(tiny_task, layout):
    devices = jax.devices()[: layout.devices]
    engine = open_engine(tiny_task, make_layout(devices, layout))
    events, losses, points = run(engine, lanes(), observe=norms, keep=True)
    _, plain, without = run(engine, lanes())
    for a, b in zip(losses, plain, strict=True):
        np.testing.assert_array_equal(a, b)
    for place, point in points.items():
        assert without[place].diagnostics == {}
        assert without[place].metrics == point.metrics
        found = point.diagnostics
        rate = RATE * (1 + place[0])
        assert found["update_norm"] == pytest.approx(rate * found["gradient_norm"], rel=1e-5)
    # An independent gradient at the end of each run, from the students themselves.
    images, logits = (np.asarray(x)[0] for x in engine.islands[0].eval_set[:2])
    for student in (event for event in events if isinstance(event, Student)):

        def loss(params):
            answers = network.apply(tiny_task.student, params, images)
            return kl_divergence(logits, answers, tiny_task.temperature)

        gradient = jax.tree.leaves(jax.grad(loss)(student.params))
        expected = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in gradient))
        weights = np.sqrt(
            sum(np.sum(np.square(w, dtype=np.float64)) for w in jax.tree.leaves(student.params))
        )
        found = points[student.lane, STEPS].diagnostics
        assert found["gradient_norm"] == pytest.approx(expected, rel=1e-3)
        ratio = RATE * (1 + student.lane) * expected / weights
        assert found["update_to_weight"] == pytest.approx(ratio, rel=1e-3)


def test_a_rule_reports_its_own_always_and_by_layer(tiny_engine):
    _, _, points = run(tiny_engine, lanes(diagnostics=by_layer))
    found = points[0, STEPS].diagnostics
    assert "layer/head/conv2d/kernel" in found
    _, _, both = run(tiny_engine, lanes(diagnostics=by_layer), observe=norms)
    total = np.sqrt(sum(value**2 for value in found.values()))
    assert both[0, STEPS].diagnostics["update_norm"] == pytest.approx(total, rel=1e-5)


def test_what_is_no_scalar_ends_the_rules_own_trials_alone(tiny_engine):
    bad = lanes(diagnostics=lambda state, updates, params: {"u": updates})
    events, _, _ = run(tiny_engine, [*bad, Lane(sgd, {"lr": RATE}, STEPS, 1)])
    ends = {e.lane: e for e in events if isinstance(e, Finished)}
    assert [ends[i].status for i in range(3)] == ["crashed", "crashed", "ok"]
    assert "return one number for each name" in ends[0].detail


def test_names_are_paths():
    assert named({"a": {"b": 1.0}, "c": [2, 3]}).keys() == {"a/b", "c/0", "c/1"}
    assert named(4.0).keys() == {"value"}
    with pytest.raises(ValueError, match=r"a has shape \(2,\)"):
        named({"a": np.ones(2)})


def test_an_optimizer_declares_them():
    @optimizer(diagnostics=by_layer)
    def mine(lr=0.1) -> optax.GradientTransformation:
        return optax.sgd(lr)

    assert mine.diagnostics is by_layer


PLUG_IN = """
import optax
from optimizers import optimizer

def sizes(state, updates, params):
    return {"update": optax.tree.norm(updates)}

@optimizer(diagnostics=sizes)
def mine(lr: float = 0.1) -> optax.GradientTransformation:
    return optax.sgd(lr)
"""


@pytest.mark.slow
def test_they_are_stored_and_shown(script, tmp_path):
    (tmp_path / "mine.py").write_text(PLUG_IN)
    done = script("run", "--opt=./mine.py", "--horizons=20", "--trials=1", "--seeds=1")
    assert done.returncode == 0, done.stderr
    assert len(rows(script)) == 1
    (records,) = (tmp_path / "runs" / "tiny").glob("*/*seed1*/records.jsonl")
    text = records.read_text()
    assert text.count('"diagnostics": {"update": ') == text.count('"metrics"')
    (events,) = (tmp_path / "runs" / "tensorboard" / "tiny" / "finals").glob("*/*/seed1/*")
    assert b"diagnostics/update" in events.read_bytes()

"""A CPU's cores as devices: the same numbers on any number of them."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optimizers
from distill_bench.training import cores
from distill_bench.training.engine import open_engine
from distill_bench.training.events import Finished, Losses, Point
from distill_bench.training.lane_layout import LayoutOptions, make_layouts
from distill_bench.training.rules import Lane
from distill_bench.training.train import train


def sgd(hparams, horizon):
    return optax.sgd(hparams["lr"], momentum=0.9)


def shampoo(hparams, horizon):
    return optax.chain(optimizers.scale_by_shampoo(update_every=5), optax.scale(-hparams["lr"]))


def everything(engine, lanes):
    """All losses and metrics of each lane, exactly."""
    found = [[] for _ in lanes]
    for event in train(engine, lanes):
        if isinstance(event, Losses):
            found[event.lane] += event.values.tolist()
        elif isinstance(event, Point):
            found[event.lane].append((event.step, event.metrics))
        elif isinstance(event, Finished):
            assert event.status == "ok", event.detail
    return found


@pytest.fixture(scope="module")
def on_cores(tiny_task):
    def opened(**options):
        return open_engine(tiny_task, *make_layouts(LayoutOptions(**options)))

    return opened


@pytest.mark.long
def test_numbers_do_not_depend_on_how_many_cores_there_are(on_cores):
    lanes = [
        Lane(sgd, {"lr": 0.1}, 110, seed=0),
        Lane(shampoo, {"lr": 0.01}, 60, seed=0),
        Lane(shampoo, {"lr": 0.02}, 30, seed=1, final=False),
        Lane(sgd, {"lr": 0.2}, 5, seed=1),
        Lane(sgd, {"lr": 0.3}, 60, seed=0),
    ]
    engines = {n: on_cores(devices=n) for n in (1, 2, 3)}
    assert {n: len(engine.islands) for n, engine in engines.items()} == {1: 1, 2: 2, 3: 3}
    one, two, three = (everything(engine, lanes) for engine in engines.values())
    assert one == two == three
    assert one == [everything(engines[3], [lane])[0] for lane in lanes]


@pytest.mark.long
def test_devices_that_share_a_batch_are_an_island(on_cores):
    lanes = [Lane(sgd, {"lr": lr}, 30, seed=0) for lr in (0.1, 0.2, 0.3)]
    two, one = on_cores(devices=4, batch_shards=2), on_cores(devices=2, batch_shards=2)
    assert [len(island.layout.mesh.devices.flat) for island in two.islands] == [2, 2]
    assert everything(two, lanes) == everything(one, lanes)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_core_has_one_thread_whatever_the_environment_says(monkeypatch):
    def threads():
        names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
        return sum("XLAEigen" in name for name in names)

    monkeypatch.setenv("NPROC", "7")
    before = threads()
    (device,) = cores.devices(1001)
    assert threads() == before + 1
    assert int(jax.jit(jnp.sum)(jax.device_put(np.arange(10), device))) == 45


def test_a_program_is_loaded_onto_other_cores_also_if_xla_cannot_write_it():
    layouts = make_layouts(LayoutOptions(devices=2))

    def spread(values, layout):
        return layout.spread([np.asarray(values, np.float32)])

    for function in (jnp.cumsum, jnp.sort):  # XLA cannot write programs that sort
        program = layouts[0].spmd(layouts[0].each(function))
        for layout in layouts:
            made = program.on(layout.mesh)(spread([3, 1, 2], layout))
            np.testing.assert_array_equal(made[0], function(np.array([3.0, 1.0, 2.0])))
            assert made.devices() == set(layout.mesh.devices.flat)

"""The training step in PyTorch is ours: the same logits, gradients and updates."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import optax
import pytest

from distill_bench.errors import UserError
from distill_bench.networks import bit, network
from distill_bench.tasks import catalogue
from distill_bench.tasks.parameters import load_teachers
from distill_bench.training.losses import kl_divergence
from distill_bench.training.source import init_student
from sweeps.board.entries import BASELINE
from sweeps.planning.plug_ins import resolve

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def peers():
    from sweeps.timing import peers

    return peers


@pytest.fixture(scope="module")
def setting():
    """The digits task, a student with a classifier, and views [N, H, W, C]."""
    task = catalogue.get("digits")
    params = init_student(task, 0)
    head = params["head"]["conv2d"]
    head["kernel"] = 0.1 * jax.random.normal(jax.random.key(1), head["kernel"].shape)
    views = jax.random.uniform(jax.random.key(2), (16, 8, 8, 1), minval=-1.0)
    return task, params, views


@pytest.mark.slow
def test_torch_computes_our_logits_gradients_and_updates(peers, setting):
    task, params, views = setting
    own_views = torch.from_numpy(np.array(views).transpose(0, 3, 1, 2).copy())
    teacher, student = peers.make_networks(task, params)
    ours = bit.apply(task.teacher, load_teachers(task)[0], views)
    np.testing.assert_allclose(teacher(own_views).numpy(), ours, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        student(own_views).detach().numpy(),
        network.apply(task.student, params, views),
        rtol=1e-4,
        atol=1e-5,
    )

    def loss_of(params):
        return kl_divergence(ours, network.apply(task.student, params, views), task.temperature)

    @jax.jit
    def step(params):
        loss, gradients = jax.value_and_grad(loss_of)(params)
        rule = optax.adamw(**hparams, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
        updates, _ = rule.update(gradients, rule.init(params), params)
        return loss, gradients, optax.apply_updates(params, updates)

    defaults = resolve(BASELINE).optimizer.defaults
    hparams = {"learning_rate": defaults["lr"]} | {k: v for k, v in defaults.items() if k != "lr"}
    loss, gradients, updated = step(params)
    optimizer = peers.adamw(student, dict(defaults))
    own_loss = peers.make_loss(task, teacher, student)(own_views)
    own_loss.backward()
    assert own_loss.item() == pytest.approx(float(loss), rel=1e-4)
    for name, gradient in peers.state_of(gradients).items():
        own = student.get_parameter(name).grad
        scale = float(gradient.abs().max())
        np.testing.assert_allclose(own, gradient, rtol=1e-3, atol=1e-4 * scale, err_msg=name)
    optimizer.step()
    big = {name: g.abs() > 1e-3 * g.abs().max() for name, g in peers.state_of(gradients).items()}
    for name, parameter in peers.state_of(updated).items():  # Adam's first step is a sign
        own = student.get_parameter(name).detach()
        np.testing.assert_allclose(own[big[name]], parameter[big[name]], rtol=1e-4, atol=1e-5)


def test_both_times_and_their_ratio_are_reported_without_a_compiler(
    peers, tiny_engine, monkeypatch
):
    def compile(*args, **kwargs):
        raise RuntimeError("No working C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(peers, "ROUNDS", 2)
    monkeypatch.setattr(peers, "BLOCK", 3)
    figures = peers.compare(tiny_engine, resolve(BASELINE).optimizer, 2, 10)
    assert figures["torch_compile"] == "not measured: No working C++ compiler found"
    assert figures["torch_eager_ms_per_step"] > 0
    assert figures["engine_ms_per_trial_step"] > 0
    assert figures["torch_eager_over_engine"] > 0


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"mode": "ind/ic"}])
def test_a_task_with_another_step_is_refused(peers, tiny_task, change):
    with pytest.raises(UserError, match="--against=pytorch is for tasks like digits"):
        peers.check(dataclasses.replace(tiny_task, **change))

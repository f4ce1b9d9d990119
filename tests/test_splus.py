"""SPlus against float64 numpy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from optimizers.contract import registry
from optimizers.splus import scale_by_splus, splus_eval_params
from support.reference import cuts
from support.shampoo_rules import distance, random, related, run


def splus64(gradients, b1, b2, block_size, every):
    """The last update for kernels that fold to [m, n]."""
    m, n = int(np.prod(gradients[0].shape[:-1])), gradients[0].shape[-1]
    out = np.zeros((m, n))
    for rows in cuts(m, block_size):
        for columns in cuts(n, block_size):
            mean = left = right = 0.0
            bases = None
            for t, g in enumerate(gradients):
                g = g.astype(np.float64).reshape(m, n)[rows, columns]
                mean = b1 * mean + (1 - b1) * g
                if bases is None:
                    signs = np.sign(mean)
                else:
                    signs = bases[0] @ np.sign(bases[0].T @ mean @ bases[1]) @ bases[1].T
                left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
                if t % every == 0:
                    bases = [np.linalg.eigh(a)[1] for a in (left, right)]
            out[rows, columns] = signs
    return (2 / (m + n) * out).reshape(gradients[0].shape)


# Square blocks after the first step: eigenvectors of a rank-deficient average are not unique, and
# the sign of an eigenvector does not matter.
@pytest.mark.parametrize(("shape", "every"), [((8, 8), 1), ((8, 8), 3), ((2, 2, 4, 8), 2)])
def test_it_matches_float64(shape, every):
    gradients = related(shape, 8)
    rule = scale_by_splus(0.9, 0.8, block_size=8, update_every=every)
    params = {"w": jnp.zeros(shape)}
    updates, _ = run(rule, [{"w": jnp.asarray(g)} for g in gradients], params)
    assert distance(updates[-1]["w"], splus64(gradients, 0.9, 0.8, 8, every)) < 1e-4


def test_vectors_and_single_rows_take_scaled_signs():
    gradients = [{"b": jnp.asarray(g[0]), "row": jnp.asarray(g[:1])} for g in related((4, 5), 3)]
    updates, _ = run(scale_by_splus(0.5, vector_scale=0.25), gradients, gradients[0])
    mean = 0.0
    for g in gradients:
        mean = 0.5 * mean + 0.5 * np.asarray(g["b"], np.float64)
    np.testing.assert_allclose(updates[-1]["b"], 0.25 * np.sign(mean), rtol=1e-6)
    np.testing.assert_allclose(updates[-1]["row"], 2 / 6 * np.sign(mean)[None], rtol=1e-6)


def test_signs_do_not_depend_on_the_scale_of_gradients():
    one, tiny = (
        run(scale_by_splus(update_every=2), [jnp.asarray(g) for g in related((6, 6), 5, s)], x)[0]
        for s in (1.0, 1e-12)
        for x in [jnp.zeros((6, 6))]
    )
    assert distance(tiny[-1], np.asarray(one[-1])) < 1e-4


def test_parameters_are_averaged_for_evaluation():
    rule = registry.resolve("splus").optimizer.build({"b3": 0.8}, 20)
    params, seen = {"w": random((4, 3), 1), "b": random((3,), 2)}, []
    state = rule.init(params)
    np.testing.assert_array_equal(splus_eval_params(state, params)["w"], params["w"])
    for i in range(5):
        seen.append(np.asarray(params["w"], np.float64))
        g = {"w": random((4, 3), 10 + i), "b": random((3,), 20 + i)}
        updates, state = rule.update(g, state, params)
        params = optax.apply_updates(params, updates)
    weights = 0.2 * 0.8 ** np.arange(5)[::-1]
    expected = np.tensordot(weights, np.stack(seen), 1) / weights.sum()
    assert distance(splus_eval_params(state, params)["w"], expected) < 1e-6
    assert distance(params["w"], expected) > 1e-3


def test_wrong_use_is_refused():
    with pytest.raises(ValueError, match="update_every=0"):
        scale_by_splus(update_every=0)
    rule = scale_by_splus()
    with pytest.raises(ValueError, match="pass params"):
        rule.update(jnp.ones(3), rule.init(jnp.ones(3)))
    with pytest.raises(ValueError, match="no averages of SPlus"):
        splus_eval_params(optax.sgd(0.1).init(jnp.ones(3)), jnp.ones(3))

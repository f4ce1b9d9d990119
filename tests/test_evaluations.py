"""The count of gradient evaluations: of a program, of a run, and at no cost."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from optimizers.contract.evaluations import Audit, Counter, Passes, bounds, marked

PARAMS = {"a": jnp.full((3, 4), 0.5), "b": jnp.zeros(4)}  # 16 numbers
ALONG = {"a": jnp.ones((3, 4)), "b": jnp.full(4, 2.0)}


def loss(params):
    return jnp.sum(jnp.tanh(jnp.ones((5, 3)) @ params["a"] + params["b"][None]) ** 2)


def scaled(params, factor):
    return jax.tree.map(lambda x: x * factor, params)


def stepped(f, params):
    return jax.tree.map(lambda x, g: x - 0.1 * g, params, jax.grad(f)(params))


# Name -> (function of the loss and parameters, fewest, most, and how many run).
USES = {
    "value": (lambda f, p: f(p), 1, 1, 1),
    "gradient": (lambda f, p: jax.grad(f)(p), 1, 1, 1),
    "both": (lambda f, p: jax.value_and_grad(f)(p), 1, 1, 1),
    "gradient of a part": (lambda f, p: jax.grad(lambda b: f({**p, "b": b}))(p["b"]), 1, 1, 1),
    "slope along a line": (lambda f, p: jax.grad(lambda s: f(scaled(p, s)))(1.0), 1, 1, 1),
    "jvp": (lambda f, p: jax.jvp(f, (p,), (ALONG,)), 2, 2, 2),
    "Hessian-vector product": (lambda f, p: jax.jvp(jax.grad(f), (p,), (ALONG,)), 2, 2, 2),
    "the same in reverse": (lambda f, p: jax.vjp(jax.grad(f), p)[1](ALONG), 2, 2, 2),
    "jacfwd": (lambda f, p: jax.jacfwd(f)(p), 17, 17, 17),
    "hessian": (lambda f, p: jax.hessian(f)(p), 17, 17, 17),
    "vmap": (lambda f, p: jax.vmap(lambda s: jax.grad(f)(scaled(p, s)))(jnp.arange(5.0)), 5, 5, 5),
    "map": (lambda f, p: lax.map(lambda s: f(scaled(p, s)), jnp.arange(7.0)), 7, 7, 7),
    "scan": (lambda f, p: lax.scan(lambda q, _: (stepped(f, q), None), p, length=6), 6, 6, 6),
    "derivative of a scan": (
        lambda f, p: jax.grad(
            lambda q: f(lax.scan(lambda r, _: (stepped(f, r), None), q, length=3)[0])
        )(p),
        *(7, 7, 7),
    ),
    "fori_loop": (lambda f, p: lax.fori_loop(0, 4, lambda i, q: stepped(f, q), p), 4, 4, 4),
    "while_loop": (
        lambda f, p: lax.while_loop(
            lambda c: c[0] < 3, lambda c: (c[0] + 1, stepped(f, c[1])), (0, p)
        ),
        *(0, float("inf"), 3),
    ),
    "cond, taken": (lambda f, p: lax.cond(p["b"].sum() == 0, lambda: f(p), lambda: 0.0), 0, 1, 1),
    "cond, left": (lambda f, p: lax.cond(p["b"].sum() > 0, lambda: f(p), lambda: 0.0), 0, 1, 0),
    "cond under vmap": (
        lambda f, p: jax.vmap(lambda s: lax.cond(s > 2, lambda: f(scaled(p, s)), lambda: 0.0))(
            jnp.arange(5.0)
        ),
        *(5, 5, 5),
    ),
    "jit": (lambda f, p: jax.jit(jax.grad(f))(p), 1, 1, 1),
    "nothing": (lambda f, p: p, 0, 0, 0),
}


@pytest.mark.parametrize("name", USES)
def test_uses_are_counted_in_the_program_and_as_it_runs(name):
    use, fewest, most, runs = USES[name]
    program = jax.make_jaxpr(lambda params: use(marked(loss), params))(PARAMS)
    assert tuple(passes.evaluations for passes in bounds(program.jaxpr)) == (fewest, most)
    counter = Counter()
    jax.block_until_ready(jax.jit(lambda p: use(marked(loss, counter.record), p))(PARAMS))
    assert counter.evaluations == runs
    counter = Counter()
    use(marked(loss, counter.record), PARAMS)  # without jit
    assert counter.evaluations == runs


@pytest.mark.parametrize("name", ["value", "gradient", "both", "Hessian-vector product"])
def test_a_mark_changes_nothing_that_is_compiled(name):
    use = USES[name][0]

    def text(f):
        return jax.jit(lambda params: use(f, params)).lower(PARAMS).as_text()

    assert text(marked(loss)) == text(loss)


@pytest.mark.parametrize("name", USES)
def test_a_mark_changes_no_number(name):
    use = USES[name][0]
    with_mark, without = (
        jax.jit(lambda params, f=f: use(f, params))(PARAMS) for f in (marked(loss), loss)
    )
    assert jax.tree.structure(with_mark) == jax.tree.structure(without)
    for a, b in zip(jax.tree.leaves(with_mark), jax.tree.leaves(without), strict=True):
        assert np.array_equal(a, b)


def test_backward_passes_count_with_forward_ones_and_not_twice():
    def use(f, params):
        value, back = jax.vjp(f, params)
        return [back(value), back(2 * value), back(3 * value)]

    program = jax.make_jaxpr(lambda params: use(marked(loss), params))(PARAMS)
    assert bounds(program.jaxpr)[0] == Passes(forward=1, backward=3)


@pytest.mark.parametrize(
    ("declared", "calls", "refused"), [(1, 0, False), (1, 1, True), (2, 1, False), (2.9, 2, True)]
)
def test_a_step_with_its_own_gradient_stays_within_what_is_declared(declared, calls, refused):
    audit = Audit("mine", declared)
    f = audit.marked(loss)
    program = jax.make_jaxpr(lambda p: [jax.grad(f)(scaled(p, i)) for i in range(calls)])(PARAMS)
    refusal = audit.refusal(program.jaxpr)
    assert bool(refusal) == refused
    assert audit.is_kept_by(program.jaxpr) != refused
    if refusal:
        assert f"mine declares evaluations={declared:g}" in refusal
        assert f"@optimizer(evaluations={1 + calls})" in refusal

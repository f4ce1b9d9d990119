"""Optimizers that take more than they declare, or end a run early, and some that may look so."""

from __future__ import annotations

from optimizers.conformance import code, fairness

HEAD = """
import jax, jax.numpy as jnp, optax
from jax import lax
from optimizers import Schedule, optimizer

def add(x, y, scale=1.0):
    return jax.tree.map(lambda a, b: a + scale * b, x, y)

def counted(update):
    # A rule whose state is the number of steps taken.
    return optax.GradientTransformationExtraArgs(lambda params: jnp.int32(0), update)
"""

CHEAT = """
@optimizer(extra_args=({extra!r},){more})
def cheat(lr: Schedule = 0.1):
    def update(updates, count, params=None, *, {extra}):
        {body}
        return jax.tree.map(lambda u: -lr(count) * u, updates), count + 1
    return counted(update)
"""


def cheat(body, extra="grad_fn", more="", before=""):
    return before + CHEAT.format(extra=extra, body=body.replace("\n", "\n        "), more=more)


LOOP = """def body(i, at):
    return add(at, grad_fn(at), -0.01)
updates = add(params, {loop}, -1.0)"""

# Name -> (source, message). The harness itself refuses these, when it compiles them.
REFUSED = {
    "an undeclared extragradient": (
        cheat("updates = grad_fn(add(params, updates, -0.1))"),
        "declares evaluations=1, but a step of it makes at least 2 gradient evaluations",
    ),
    "more of them than declared": (
        cheat(
            "for _ in range(3): updates = grad_fn(add(params, updates, -0.1))",
            more=", evaluations=2",
        ),
        "at least 4 gradient evaluations",
    ),
    "a fori_loop": (
        cheat(LOOP.format(loop="lax.fori_loop(0, 5, body, params)")),
        "at least 6 gradient evaluations",
    ),
    "a fori_loop whose bounds are traced": (
        cheat(LOOP.format(loop="lax.fori_loop(0, jnp.int32(5) + 0 * count, body, params)")),
        "in a cond or a while loop",
    ),
    "a while loop": (
        cheat(
            LOOP.format(
                loop="lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, body(0, c[1])), "
                "(0, params))[1]"
            )
        ),
        "in a cond or a while loop",
    ),
    "a scan": (
        cheat(LOOP.format(loop="lax.scan(lambda at, _: (body(0, at), None), params, length=7)[0]")),
        "at least 8 gradient evaluations",
    ),
    "a population under vmap": (
        cheat(
            "many = jax.vmap(lambda s: grad_fn(add(params, updates, -s)))(jnp.arange(4.0))\n"
            "updates = jax.tree.map(lambda g: g.mean(0), many)"
        ),
        "at least 5 gradient evaluations",
    ),
    "a map over steps of a line search": (
        cheat(
            "tried = lax.map(lambda s: value_fn(add(params, updates, -s)), jnp.arange(8.0))\n"
            "updates = jax.tree.map(lambda u: jnp.argmin(tried) * u, updates)",
            "value_fn",
        ),
        "at least 9 gradient evaluations",
    ),
    "finite differences": (
        cheat(
            "slope = value_fn(add(params, updates, 0.01)) - value_fn(add(params, updates, -0.01))\n"
            "updates = jax.tree.map(lambda u: slope * u, updates)",
            "value_fn",
        ),
        "at least 3 gradient evaluations",
    ),
    "a second gradient through value_fn": (
        cheat("updates = jax.grad(value_fn)(add(params, updates, -0.1))", "value_fn"),
        "at least 2 gradient evaluations",
    ),
    "a Hessian": (
        cheat(
            "bend = jax.hessian(lambda s: obj_fn(add(params, updates, -s)))(0.0)\n"
            "updates = jax.tree.map(lambda u: u / (1 + abs(bend)), updates)",
            "obj_fn",
        ),
        "at least 3 gradient evaluations",
    ),
    "forward-mode derivatives along many directions": (
        cheat(
            "slopes = jax.jacfwd(lambda s: value_fn(add(params, updates, s.sum())))(jnp.ones(6))\n"
            "updates = jax.tree.map(lambda u: slopes.sum() * u, updates)",
            "value_fn",
        ),
        "at least 8 gradient evaluations",
    ),
    "one linearization that is used again and again": (
        cheat(
            "_, along = jax.linearize(value_fn, params)\n"
            "slope = sum(along(jax.tree.map(lambda u: u**i, updates)) for i in range(1, 5))\n"
            "updates = jax.tree.map(lambda u: slope * u, updates)",
            "value_fn",
        ),
        "at least 6 gradient evaluations",
    ),
    "a gradient inside jit, checkpoint and a custom derivative": (
        cheat(
            "hidden = jax.custom_jvp(lambda at: jax.jit(jax.checkpoint(grad_fn))(at))\n"
            "hidden.defjvp(lambda at, along: (at[0], along[0]))\n"
            "updates = hidden(add(params, updates, -0.1))"
        ),
        "at least 2 gradient evaluations",
    ),
    "a solver of linear equations with Hessian-vector products": (
        cheat(
            "hvp = lambda v: jax.jvp(jax.grad(obj_fn), (params,), (v,))[1]\n"
            "updates, _ = jax.scipy.sparse.linalg.cg(hvp, updates, maxiter=3)",
            "obj_fn",
            more=", evaluations=2",
        ),
        "at least 3 gradient evaluations",
    ),
    "a branch that is taken late": (
        cheat(
            "updates = lax.cond(count > 10**6, lambda: grad_fn(add(params, updates, -0.1)), "
            "lambda: updates)"
        ),
        "in a cond or a while loop",
    ),
    "only on the real task's shapes": (
        cheat(
            "if len(jax.tree.leaves(params)) > 4:\n"
            "    updates = grad_fn(add(params, updates, -0.1))"
        ),
        "at least 2 gradient evaluations",
    ),
    "only at the real task's horizons": (
        cheat(
            "if horizons[-1] > 20:\n    updates = grad_fn(add(params, updates, -0.1))",
            more=", schedule=spying",
            before="""
horizons = []
def spying(peak, steps):
    horizons.append(steps)
    return lambda count: peak
""",
        ),
        "at least 2 gradient evaluations",
    ),
    "only when it has been traced often enough to be the real program": (
        cheat(
            "calls.append(1)\n"
            "if len(calls) > 1:\n    updates = grad_fn(add(params, updates, -0.1))",
            before="\ncalls = []\n",
        ),
        "at least 2 gradient evaluations",
    ),
    # These end with jax's own error: outside its step, the batch does not exist.
    "a gradient in eval_params, by a global variable": (
        cheat(
            "smuggled.append(grad_fn)",
            more=", eval_params=train_more",
            before="""
smuggled = []
def train_more(state, params):
    return add(params, smuggled[-1](params), -0.1)
""",
        ),
        "Error",
    ),
    "a loss in the state": (
        """
@optimizer(extra_args=("grad_fn",))
def cheat(lr: Schedule = 0.1):
    def update(updates, state, params=None, *, grad_fn):
        return jax.tree.map(lambda u: -lr(0) * u, updates), grad_fn
    return optax.GradientTransformationExtraArgs(lambda params: (), update)
""",
        "not a valid JAX type",
    ),
}

RATE = """
@optimizer{declared}
def cheat(lr: Schedule = 0.1):
    def update(updates, count, params=None):
        return jax.tree.map(lambda u: -{rate} * u, updates), count + 1
    return counted(update)
"""

# Name -> (check, source, message).
FOUND_OUT = {
    "the task itself": (
        code.imports_no_harness,
        "from distill_bench.training import source" + RATE.format(declared="", rate="lr(count)"),
        "cheat.py imports distill_bench.training",
    ),
    "a while loop that runs longer than declared": (
        fairness.evaluates_as_declared,
        cheat(
            LOOP.format(
                loop="lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, body(0, c[1])), "
                "(0, params))[1]"
            ),
            more=", evaluations=2",
        ),
        "over a run of 250 steps, 6 gradient evaluations",
    ),
    "a branch that is taken more often than declared": (
        fairness.evaluates_as_declared,
        cheat(
            "updates = lax.cond(count % 2 == 0, lambda: grad_fn(add(params, updates, -0.1)), "
            "lambda: updates)",
            more=", evaluations=1.1",
        ),
        "over a run of 250 steps, 1.5 gradient evaluations",
    ),
    "a branch that is taken late": (
        fairness.evaluates_as_declared,
        cheat(
            "updates = lax.cond(count > 2000, lambda: grad_fn(add(params, updates, -0.1)), "
            "lambda: updates)",
            more=", evaluations=1.1",
        ),
        "over a run of 4,000 steps, 1.5 gradient evaluations",
    ),
    "a count that runs twice as fast": (
        fairness.follows_its_schedule,
        RATE.format(declared="", rate="lr(2 * count)"),
        "in step 2 (from 0), the schedule of lr is read at count 4",
    ),
    "a count that runs behind": (
        fairness.follows_its_schedule,
        RATE.format(declared="", rate="lr(count // 2)"),
        "in step 1 (from 0), the schedule of lr is read at count 0",
    ),
    "a count that leaves out the warm-up": (
        fairness.follows_its_schedule,
        RATE.format(declared="", rate="lr(count + 100)"),
        "in step 0 (from 0), the schedule of lr is read at count 100",
    ),
    "a count that changes later": (
        fairness.follows_its_schedule,
        RATE.format(declared="", rate="lr(jnp.where(count > 150, 3 * count, count))"),
        "in step 151 (from 0)",
    ),
    "the right count beside the one that is used": (
        fairness.follows_its_schedule,
        RATE.format(declared="", rate="(0.001 * lr(count) + lr(2 * count))"),
        "is read at count 4",
    ),
    "a schedule that is declared and not used": (
        fairness.follows_its_schedule,
        RATE.format(declared="", rate="0.1"),
        "the schedule of lr is not read in step 0",
    ),
    "a schedule of 100 steps at every horizon": (
        fairness.moves_to_the_end,
        RATE.format(
            declared="(schedule=lambda peak, steps: optax.linear_schedule(peak, 0.0, 100))",
            rate="lr(count)",
        ),
        "they stand still after step 100",
    ),
    "a rule that stops by itself": (
        fairness.moves_to_the_end,
        RATE.format(declared="", rate="jnp.where(count < 500, lr(count), 0.0)"),
        "they stand still after step 500",
    ),
    "a count that runs twice as fast, seen by its end": (
        fairness.moves_to_the_end,
        RATE.format(declared="", rate="lr(2 * count)"),
        "they stand still after step",
    ),
}

HONEST = {
    "an extragradient": cheat(
        "updates = grad_fn(add(params, updates, -0.1))", more=", evaluations=2"
    ),
    "one in every tenth step": cheat(
        "updates = lax.cond(count % 10 == 0, lambda: grad_fn(add(params, updates, -0.1)), "
        "lambda: updates)",
        more=", evaluations=1.1",
    ),
    "a step size from values": cheat(
        "slope = value_fn(add(params, updates, 0.1)) - value_fn(params)\n"
        "updates = jax.tree.map(lambda u: jnp.tanh(slope) * u, updates)",
        "value_fn",
        more=", evaluations=3",
    ),
}

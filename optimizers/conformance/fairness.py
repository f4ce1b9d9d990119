"""Checks that an optimizer takes no more than its rivals, and trains for the whole of its run."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Jaxpr

from optimizers.conformance.problems import (
    HORIZONS,
    STEPS,
    build,
    call,
    corners,
    measured,
    minibatch,
    network,
    quadratic,
    run,
    shortest_horizon,
    start,
    steady,
    take_step,
)
from optimizers.contract.api import FUNCTIONS, Optimizer
from optimizers.contract.evaluations import Audit, Counter, marked

COUNTED = (250, 4000)  # steps over which evaluations are counted: a short and a long run
TOLERANCE = 1.01  # of their mean: the last step may begin another interval
WATCHED = 300  # steps in which the counts of schedules are watched: more than 8 bits can count
MOVED = (1000, HORIZONS[-1])  # steps of the run; the second if the first moves nothing at all
LEAST_SHARE = 1e-5
"""Of a run's path, what lies in its last tenth at least: 2e-3 with a cosine, 1e-3 with a quadratic
decay, 1e-4 with a cubic one."""
RESTING = 1e-4  # length that rounding may move the parameters


def evaluates_as_declared(opt: Optimizer) -> str | None:
    """A step takes no more gradient evaluations than `evaluations` says, on average.

    They are counted as the compiled update runs: with branches and loops as they are taken.
    """
    if FUNCTIONS.isdisjoint(opt.extra_args):
        return None
    audit = Audit(opt.name, opt.evaluations)
    updates = [_update_program(opt, hparams, audit) for hparams in corners(opt)]
    if refusals := list(filter(None, map(audit.refusal, updates))):
        return refusals[0]
    if all(map(audit.is_kept_by, updates)):
        return None
    for steps in COUNTED:
        horizon, counter = max(steps, shortest_horizon(opt)), Counter()
        jax.block_until_ready(jax.jit(lambda n=horizon, c=counter: _counted(opt, n, c))())
        mean = 1 + counter.evaluations / horizon
        if mean > TOLERANCE * opt.evaluations:
            return audit.excess(mean, f"makes, over a run of {horizon:,} steps,")
    return None


def _counted(opt: Optimizer, horizon: int, counter: Counter) -> Any:
    """A run in which `counter` counts the evaluations through the extras.

    Every step has a batch of its own, as in training: a line search on one fixed loss takes ever
    more evaluations when there is nothing left to gain.
    """
    rule = build(opt, horizon=horizon)

    def body(carry: tuple[Any, Any], i: jax.Array) -> tuple[tuple[Any, Any], None]:
        params, state = carry
        loss = minibatch(i)
        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = call(
            opt, rule, marked(loss, counter.record), params, state, value, gradients
        )
        return (optax.apply_updates(params, updates), state), None

    steps = jnp.arange(horizon)
    return jax.lax.scan(body, (start(), rule.init(start())), steps)[0]


def _update_program(opt: Optimizer, hparams: Any, audit: Audit) -> Jaxpr:
    """The program of one update, as the harness audits it."""
    rule, loss = build(opt, hparams), audit.marked(network)

    def update(gradients: Any, value: Any) -> Any:
        return call(opt, rule, loss, start(), rule.init(start()), value, gradients)

    return jax.make_jaxpr(update)(start(), jnp.float32(1)).jaxpr


def follows_its_schedule(opt: Optimizer) -> str | None:
    """Each scheduled hyperparameter is read at every step, at the count of this step.

    The count of step i, from 0, is i, or i + 1 for a rule that counts from 1. A count that runs
    faster ends the schedule before the run; one that stays behind never reaches its decay.
    """
    counts: dict[str, list[float]] = defaultdict(list)
    watched = _watching(opt, lambda name, count: counts[name].append(count))
    rule = build(watched, horizon=max(WATCHED, shortest_horizon(opt)))
    step = jax.jit(lambda params, state: take_step(watched, rule, quadratic, params, state)[:2])
    params, state = start(), rule.init(start())
    for i in range(WATCHED):
        counts.clear()
        params, state = jax.block_until_ready(step(params, state))
        for name in sorted(opt.scheduled):
            if not counts[name]:
                return (
                    f"the schedule of {name} is not read in step {i} (from 0): the update does not "
                    f"depend on {name}(count). Use it at every step, or do not annotate {name} as "
                    "Schedule"
                )
            if wrong := [count for count in counts[name] if count not in (i, i + 1)]:
                return (
                    f"in step {i} (from 0), the schedule of {name} is read at count {wrong[0]:g}: "
                    f"it is {name}(count) with a count that grows by 1 a step, from 0 or 1"
                )
    return None


def rests_at_rate_zero(opt: Optimizer) -> str | None:
    """Steps at a rate of zero do not move the parameters. This is a warning, not a failure.

    All that is scheduled is zero in every step. A rule whose schedules set no rate may move.
    """
    if not opt.scheduled:
        return None
    params, state = jax.jit(lambda: run(steady(opt, rate=0.0), {}))()
    for what, end in (("", params), ("evaluated ", measured(opt, state, params))):
        if (far := float(optax.tree.norm(optax.tree.sub(end, start())))) > RESTING:
            return (
                f"with {' and '.join(sorted(opt.scheduled))} at 0 throughout, {STEPS} steps move "
                f"the {what}parameters by {far:.2g}: the steps do not follow the schedule down to "
                "its end. If they should, multiply all of the update by it"
            )
    return None


def _watching(opt: Optimizer, record: Callable[[str, float], None]) -> Optimizer:
    """`opt`, which reports the count at which a schedule is read whenever compiled code does it."""

    def watch(name: str, schedule: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def report(count: Any, value: Any) -> Any:
            record(name, float(count))
            return value

        def watched(count: Any) -> Any:
            value = jnp.asarray(schedule(count))
            shape = jax.ShapeDtypeStruct(value.shape, value.dtype)
            # The value passes through the call, so that XLA leaves it out only if nobody uses it.
            return jax.pure_callback(report, shape, count, value, vmap_method="sequential")

        return watched

    @functools.wraps(opt.make)
    def make(**hparams: Any) -> Any:
        return opt.make(
            **{
                name: watch(name, value) if name in opt.scheduled else value
                for name, value in hparams.items()
            }
        )

    return dataclasses.replace(opt, make=make)


def moves_to_the_end(opt: Optimizer) -> str | None:
    """The parameters still move in the last tenth of a run, whose schedule ends with it."""
    horizon, path = 0, np.zeros(1)
    for steps in MOVED:
        horizon = max(steps, shortest_horizon(opt))
        path = np.asarray(jax.jit(lambda n=horizon: _path(opt, n))(), np.float64)
        if path.any():
            break  # else it may be warming up for longer
    if path[-(horizon // 10) :].sum() > LEAST_SHARE * path.sum():
        return None
    moves = np.flatnonzero(path > LEAST_SHARE * path.mean())
    return (
        f"the last tenth of a run of {horizon:,} steps does not move the parameters; they stand "
        f"still after step {moves[-1] + 1 if len(moves) else 0:,}: is the schedule over too early?"
    )


def _path(opt: Optimizer, horizon: int) -> jax.Array:
    """Norms of a run's updates [horizon], on a quadratic whose centre moves from step to step.

    A gradient that never vanishes, as in training, keeps a rule moving.
    """
    rule = build(opt, horizon=horizon)

    def body(carry: tuple[Any, Any], i: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
        def loss(params: Any) -> jax.Array:
            return quadratic(jax.tree.map(lambda x, c: x - jnp.cos(i * c), params, start()))

        params, state, updates = take_step(opt, rule, loss, *carry)
        return (params, state), optax.tree.norm(updates)

    return jax.lax.scan(body, (start(), rule.init(start())), jnp.arange(horizon))[1]

"""Optimizers that are broken in one subtle way each: they train, and most lower the loss.

Each names the conformance check that must catch it, and words of what the check says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from optimizers.conformance import (
    buffers,
    fairness,
    hyperparameters,
    interface,
    naming,
    purity,
    runs,
    state,
)
from optimizers.contract.api import Optimizer

HEAD = """
import time
from typing import Annotated, NamedTuple
import jax, jax.numpy as jnp, numpy as np, optax
from jax import lax
from optimizers import Choice, Decay, Log, Schedule, optimizer
from optimizers.contract.repairs import keep_dtypes

Rate = Annotated[Schedule, Log(1e-2, 3e-1)]
B1 = Annotated[float, Decay(0.7, 0.95)]
WeightDecay = Annotated[float, Log(1e-3, 2e-1)]

def over(function, *trees):
    return jax.tree.map(function, *trees)

def zeros(params):
    return over(jnp.zeros_like, params)

def rule(init, update):
    return optax.GradientTransformation(init, update)

def moment(m, g, b1):
    return over(lambda m, g: (b1 * m + (1 - b1) * g).astype(m.dtype), m, g)

def scaled(rate, tree):
    return over(lambda x: (-rate * x).astype(x.dtype), tree)
"""

# A heavy ball, whose parts a broken rule replaces.
BALL = """
@optimizer
def broken(lr: Rate = 1e-1, *, b1: B1 = 0.9):
    def init(params):
        return {{"count": jnp.int32(0), "m": zeros(params)}}

    def update(updates, state, params=None):
        count, g = state["count"], updates
        m = moment(state["m"], g, b1)
        new = {{"count": count + 1, "m": m}}
        {body}
        return scaled(lr(count), m), new

    return rule(init, update)
"""


def ball(body: str = "pass") -> str:
    return BALL.format(body=body.replace("\n", "\n        "))


class Broken(NamedTuple):
    """check: the one that must catch the rule; says: words of its reason; source: the rule."""

    check: Callable[[Optimizer], str | None]
    says: str
    source: str


SOUND = {
    "a heavy ball": ball(),
    "Adam without bias correction": """
@optimizer
def sound(lr: Rate = 1e-1, *, b1: B1 = 0.9, weight_decay: WeightDecay = 1e-3):
    def init(params):
        return zeros(params), zeros(params), jnp.int32(0)

    def update(updates, state, params=None):
        m, v, count = state
        m, v = moment(m, updates, b1), moment(v, over(jnp.square, updates), 0.95)
        step = over(
            lambda m, v, p: m / (jnp.sqrt(v) + 1e-8) + (weight_decay * p).astype(p.dtype),
            m, v, params,
        )
        return scaled(lr(count), step), (m, v, count + 1)

    return rule(init, update)
""",
    "an average of the parameters, which is evaluated": """
def average(state, params):
    return state[2]

@optimizer(eval_params=average)
def sound(lr: Rate = 1e-1, *, keep: Annotated[float, Choice(0.5, 0.9)] = 0.8):
    inner = optax.adam(lr)

    def init(params):
        return inner.init(params), jnp.int32(0), over(jnp.array, params)

    def update(updates, state, params=None):
        updates, fast = inner.update(updates, state[0], params)
        ahead = optax.apply_updates(params, updates)
        return updates, (fast, state[1] + 1, moment(state[2], ahead, keep))

    return rule(init, update)
""",
    "random signs whose key is in the state": """
@optimizer
def sound(lr: Rate = 1e-1):
    def init(params):
        return jnp.int32(0), jax.random.key(0)

    def update(updates, state, params=None):
        count, key = state
        key, mine = jax.random.split(key)
        noise = 1 + 0.1 * jax.random.normal(mine)
        return scaled(lr(count) * noise, updates), (count + 1, key)

    return rule(init, update)
""",
    "hyperparameters injected into the state": """
@optimizer
def sound(lr: Rate = 1e-1):
    return keep_dtypes(optax.inject_hyperparams(optax.adam)(lr))
""",
}

BROKEN = {
    "weight decay of the wrong sign": Broken(
        hyperparameters.decays_towards_zero,
        "more weight decay must shrink them",
        """
@optimizer
def broken(lr: Rate = 1e-1, *, weight_decay: WeightDecay = 1e-3):
    return optax.chain(
        optax.scale_by_adam(), optax.scale_by_learning_rate(lr),
        optax.add_decayed_weights(1e-2 * weight_decay),
    )
""",
    ),
    "weight decay away from zero inside the gradient": Broken(
        hyperparameters.decays_towards_zero,
        "with weight_decay=0.1 instead of 0,",
        """
@optimizer
def broken(lr: Rate = 1e-1, *, weight_decay: float = 0.0):
    return optax.chain(optax.add_decayed_weights(-weight_decay), optax.sgd(lr))
""",
    ),
    "a count that is never advanced": Broken(
        state.updates_its_state,
        "['count'] stays at 0",
        ball('corrected = 1 - b1 ** (count + 1)\nnew["count"] = count').replace("lr(count)", "0.1"),
    ),
    "a momentum that is never kept": Broken(
        state.updates_its_state,
        "['m']['bias'] (and 2 more) stays at 0",
        ball('new["m"] = state["m"]'),
    ),
    "a second moment that forgets each gradient": Broken(
        state.updates_its_state,
        "stays at 0",
        """
@optimizer
def broken(lr: Rate = 1e-1, *, b1: B1 = 0.9):
    def init(params):
        return zeros(params), zeros(params), jnp.int32(0)

    def update(updates, state, params=None):
        m, v, count = state
        m, v = moment(m, updates, b1), over(lambda v: 0.95 * v, v)
        step = over(lambda m, v: m / (jnp.sqrt(v) + 1.0), m, v)
        return scaled(lr(count), step), (m, v, count + 1)

    return rule(init, update)
""",
    ),
    "a momentum that freezes after the first gradient": Broken(
        state.uses_every_gradient,
        "another gradient in step 4",
        ball('m = over(lambda m, g: jnp.where(count == 0, g, m), state["m"], g)\nnew["m"] = m'),
    ),
    "a rule that stops learning after ten steps": Broken(
        state.uses_every_gradient,
        "another gradient in step 16",
        ball('m = over(lambda m, old: jnp.where(count < 10, m, old), m, state["m"])\nnew["m"] = m'),
    ),
    "a count of traces": Broken(
        purity.keeps_everything_in_its_state,
        "the same steps by the same rule come out differently the second time",
        "calls = [0]\n" + ball("calls[0] += 1\nm = over(lambda m: m / calls[0] ** 0.5, m)"),
    ),
    "noise of numpy with a fixed seed for each rule": Broken(
        purity.keeps_everything_in_its_state,
        "draws random numbers in Python",
        """
@optimizer
def broken(lr: Rate = 1e-1):
    noise = np.random.default_rng(0)

    def update(updates, count, params=None):
        def noisy(g):
            return g + jnp.asarray(1e-4 * noise.standard_normal(g.shape), g.dtype)
        return scaled(lr(count), over(noisy, updates)), count + 1

    return rule(lambda params: jnp.int32(0), update)
""",
    ),
    "another rule under jit": Broken(
        purity.does_the_same_with_jit,
        "the rule asks whether it is traced",
        ball("if isinstance(jax.tree.leaves(g)[0], jax.core.Tracer):\n    m = over(jnp.sign, m)"),
    ),
    "an anchor that only the function remembers": Broken(
        purity.keeps_everything_in_its_state,
        "something is kept outside the state",
        """
@optimizer
def broken(lr: Rate = 1e-1):
    start = {}

    def init(params):
        start["params"] = params
        return jnp.int32(0)

    def update(updates, count, params=None):
        back = over(lambda p, a: 0.1 * (p - a), params, start.get("params", params))
        return scaled(lr(count), over(jnp.add, updates, back)), count + 1

    return rule(init, update)
""",
    ),
    "a schedule that is read and hardly used": Broken(
        fairness.rests_at_rate_zero,
        "with lr at 0 throughout",
        ball("return scaled(0.1 + 0.1 * lr(count), m), new"),
    ),
    "weight decay outside the schedule": Broken(
        fairness.rests_at_rate_zero,
        "multiply all of the update by it",
        """
@optimizer
def broken(lr: Rate = 1e-1, *, weight_decay: WeightDecay = 1e-3):
    def update(updates, count, params=None):
        step = scaled(lr(count), updates)
        decay = scaled(weight_decay, params)
        return over(jnp.add, step, decay), count + 1

    return rule(lambda params: jnp.int32(0), update)
""",
    ),
    "a schedule that is read twice a step": Broken(
        fairness.follows_its_schedule,
        "in step 2 (from 0), the schedule of lr is read at count 4",
        ball('new["count"] = count + 2'),
    ),
    "a count of eight bits": Broken(
        fairness.follows_its_schedule,
        "in step 256 (from 0), the schedule of lr is read at count 0",
        ball().replace("jnp.int32(0)", "jnp.uint8(0)").replace("count + 1", "count + jnp.uint8(1)"),
    ),
    "another rate for what is called bias": Broken(
        naming.ignores_names,
        "bias",
        ball(
            "def own(path, x):\n"
            "    return 0.1 * x if 'bias' in jax.tree_util.keystr(path) else x\n"
            "m = jax.tree_util.tree_map_with_path(own, m)"
        ),
    ),
    "no step for what is called head": Broken(
        naming.ignores_names,
        "head",
        ball(
            "def own(path, x):\n"
            "    return 0 * x if 'head' in jax.tree_util.keystr(path) else x\n"
            "m = jax.tree_util.tree_map_with_path(own, m)"
        ),
    ),
    "a smaller rate for each later parameter": Broken(
        naming.ignores_the_order_of_leaves,
        "depends on its place among the others",
        ball(
            "leaves, tree = jax.tree.flatten(m)\n"
            "m = jax.tree.unflatten(tree, [x * 0.9 ** i for i, x in enumerate(leaves)])"
        ),
    ),
    "one array of zeros for both moments": Broken(
        buffers.holds_no_buffer_twice,
        "are one buffer",
        """
@optimizer
def broken(lr: Rate = 1e-1, *, b1: B1 = 0.9):
    def init(params):
        nothing = zeros(params)
        return nothing, nothing, jnp.int32(0)

    def update(updates, state, params=None):
        m, v, count = state
        m, v = moment(m, updates, b1), moment(v, over(jnp.square, updates), 0.95)
        step = over(lambda m, v: m / (jnp.sqrt(v) + 1e-8), m, v)
        return scaled(lr(count), step), (m, v, count + 1)

    return rule(init, update)
""",
    ),
    "the parameters themselves in the state": Broken(
        buffers.copies_the_parameters_it_keeps,
        "is the buffer of parameters['bias']",
        """
@optimizer
def broken(lr: Rate = 1e-1):
    def init(params):
        return params, jnp.int32(0)

    def update(updates, state, params=None):
        slow, count = state
        slow = moment(slow, params, 0.9)
        step = over(lambda g, p, s: g + 0.01 * (p - s), updates, params, slow)
        return scaled(lr(count), step), (slow, count + 1)

    return rule(init, update)
""",
    ),
    "a rule that writes into the parameters": Broken(
        purity.leaves_its_arguments_alone,
        "update writes into its arguments, at ['params']['bias']",
        ball(
            "for name in ('bias', 'vector'):\n"
            "    if name in (params or {}):\n"
            "        params[name] = params[name] * 0"
        ),
    ),
    "an init that writes into the parameters": Broken(
        purity.leaves_its_arguments_alone,
        "init writes into its arguments, at ['params']['scale']",
        ball().replace("(params):", "(params):\n        params['scale'] = jnp.ones(())"),
    ),
    "evaluations that are not declared": Broken(
        fairness.evaluates_as_declared,
        "makes at least 2 gradient evaluations",
        """
@optimizer(extra_args=("grad_fn",))
def broken(lr: Rate = 1e-1):
    def update(updates, count, params=None, *, grad_fn):
        ahead = over(lambda p, g: p - 0.01 * g, params, updates)
        return scaled(lr(count), grad_fn(ahead)), count + 1

    return optax.GradientTransformationExtraArgs(lambda params: jnp.int32(0), update)
""",
    ),
    "squares in half precision": Broken(
        runs.stays_finite,
        "with huge (1e8) gradients",
        """
def half(x):
    return x.astype(jnp.float16)

@optimizer
def broken(lr: Rate = 1e-1):
    def update(updates, state, params=None):
        v, count = state
        v = moment(v, over(lambda g: jnp.square(half(g)), updates), 0.95)
        step = over(lambda g, v: half(g) / (jnp.sqrt(v) + 1e-3), updates, v)
        step = over(lambda s, g: s.astype(g.dtype), step, updates)
        return scaled(lr(count), step), (v, count + 1)

    def init(params):
        return over(lambda p: jnp.zeros(p.shape, jnp.float16), params), jnp.int32(0)

    return rule(init, update)
""",
    ),
    "a division by the norm of a gradient": Broken(
        runs.stays_finite,
        "parameters are not finite after step",
        ball("norm = optax.tree.norm(g)\nm = over(lambda x: (x / norm).astype(x.dtype), m)"),
    ),
    "a Nesterov flag that does nothing": Broken(
        hyperparameters.uses_its_hyperparameters,
        "nesterov is not used in broken",
        """
@optimizer
def broken(lr: Rate = 1e-1, *, momentum: B1 = 0.9, nesterov: bool = True):
    return optax.sgd(lr, momentum)
""",
    ),
    "a decay that is replaced by a constant": Broken(
        hyperparameters.has_no_dead_hyperparameter,
        "b1 changes nothing",
        ball('m = moment(state["m"], g, 0.9 + 0 * b1)\nnew["m"] = m'),
    ),
    "ascent in vectors and scalars": Broken(
        runs.lowers_losses,
        "but not in parameters['bias']",
        ball("m = over(lambda x: x if x.ndim > 1 else -0.2 * x, m)"),
    ),
    "scalars that are left out": Broken(
        runs.lowers_losses,
        "but not in parameters['scalar']",
        ball("m = over(lambda x: x if x.ndim else 0 * x, m)"),
    ),
    "one momentum for all parameters of a shape": Broken(
        naming.ignores_the_order_of_leaves,
        "depends on its place among the others",
        """
@optimizer
def broken(lr: Rate = 1e-1, *, b1: B1 = 0.9):
    def init(params):
        shapes = {str(p.shape): p for p in jax.tree.leaves(params)}
        return zeros(shapes), jnp.int32(0)

    def update(updates, state, params=None):
        m, count = state
        m = moment(m, {str(g.shape): g for g in jax.tree.leaves(updates)}, b1)
        return scaled(lr(count), over(lambda g: m[str(g.shape)], updates)), (m, count + 1)

    return rule(init, update)
""",
    ),
    "an epsilon that swallows the step": Broken(
        runs.lowers_losses,
        "steps do not lower a quadratic by 1%",
        """
@optimizer
def broken(lr: Rate = 1e-2, *, b1: B1 = 0.9):
    return optax.adam(lr, b1, eps=1e8)
""",
    ),
    "norms over all trials under vmap": Broken(
        runs.is_batched,
        "under vmap, parameters",
        """
@jax.custom_batching.custom_vmap
def normed(x):
    return x / (1e-8 + jnp.abs(x).max())

@normed.def_vmap
def _(size, batched, x):
    return x / (1e-8 + jnp.abs(x).max()), True

@optimizer
def broken(lr: Rate = 1e-1):
    def update(updates, count, params=None):
        return scaled(lr(count), over(normed, updates)), count + 1

    return rule(lambda params: jnp.int32(0), update)
""",
    ),
    "a sum whose type grows": Broken(
        interface.traces_once,
        "the state changes its types between steps",
        """
@optimizer
def broken(lr: Rate = 1e-1):
    def update(updates, count, params=None):
        return scaled(lr(count), updates), count + jnp.float32(1)

    return rule(lambda params: jnp.asarray(0), update)
""",
    ),
    "an average of another type": Broken(
        interface.keeps_shapes_and_dtypes,
        "what eval_params returns",
        """
def average(state, params):
    return over(lambda x: x.astype(jnp.float32), state["m"])

"""
        + ball('new["m"] = moment(state["m"], optax.apply_updates(params, scaled(0.1, g)), b1)')
        .replace("@optimizer", "@optimizer(eval_params=average)")
        .replace("zeros(params)", "over(jnp.array, params)"),
    ),
}

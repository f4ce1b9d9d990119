"""Built-in optimizers in ordinary optax code allow what optax's own optimizers allow."""

from __future__ import annotations

import unittest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from optax.contrib import MuonDimensionNumbers

from optimizers import static_args
from optimizers.contract import registry
from optimizers.contract.api import FUNCTIONS, offer
from optimizers.shampoo import scale_by_shampoo, shampoo
from optimizers.soap import scale_by_soap
from support.contrib_suite import cases
from support.shampoo_rules import RULES, distance, random

ALL = [registry.resolve(name).optimizer for name in registry.builtins()]
NAMED = {"argvalues": ALL, "ids": lambda opt: opt.name}
MATRICES = [opt for opt in ALL if opt.name in ("shampoo", "soap", "muon")]

SHAPES = {"conv": (3, 3, 4, 8), "dense": (8, 4), "bias": (4,)}
SPECS = {"conv": P(None, None, None, "data"), "dense": P("data"), "bias": P("data")}


def parameters(dtype=jnp.float32):
    return {name: random(shape, i).astype(dtype) for i, (name, shape) in enumerate(SHAPES.items())}


def loss(params):
    return sum(jnp.sum(jnp.abs(p - 0.3) ** 2) for p in jax.tree.leaves(params)) / 2


def stepper(opt, rule, **unexpected):
    def step(params, state):
        value, gradients = jax.value_and_grad(loss)(params)
        extras = offer(opt.extra_args, loss, value, gradients) | unexpected
        updates, state = rule.update(gradients, state, params, **extras)
        return optax.apply_updates(params, updates), state

    return step


def traced(opt, params, **unexpected):
    """Traces two steps in a scan from a fresh state: types must not change."""
    rule = opt()
    step = stepper(opt, rule, **unexpected)
    return jax.eval_shape(
        lambda p: jax.lax.scan(lambda c, _: (step(*c), None), (p, rule.init(p)), length=2)[0],
        params,
    )


@pytest.mark.parametrize("opt", **NAMED)
def test_unexpected_extra_arguments_are_accepted(opt):
    traced(opt, parameters(), one_that_nobody_expects=1)


# That of optax's L-BFGS cannot: its line search asks for the parameters' dtype.
@pytest.mark.parametrize("opt", [opt for opt in ALL if opt.name != "lbfgs"], ids=NAMED["ids"])
def test_the_state_can_be_mapped_over_parameters(opt):
    rule, params = opt(), parameters()
    state = rule.init(params)
    same = optax.tree.map_params(rule, lambda x: x, state)
    assert jax.tree.structure(same) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, same, state)
    if opt.name == "sm3":  # optax's holds a list of arrays for each parameter
        return
    mapped = []
    optax.tree.map_params(
        rule,
        lambda _, p: mapped.append(p.shape),
        state,
        params,
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )
    if any(x.shape == SHAPES["conv"] for x in jax.tree.leaves(state)):
        assert SHAPES["conv"] in mapped


@pytest.mark.parametrize("opt", **NAMED)
def test_a_fresh_state_and_its_parameters_can_be_donated(opt):
    params = parameters()
    held = jax.tree.leaves((params, opt().init(params)))
    places = [x.unsafe_buffer_pointer() for x in held if isinstance(x, jax.Array) and x.size]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("opt", **NAMED)
def test_types_are_stable_with_x64(opt, dtype):
    with jax.enable_x64(True):
        params, _ = traced(opt, jax.tree.map(lambda p: np.asarray(p, dtype), parameters()))
    assert {p.dtype for p in params.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("opt", **NAMED)
def test_complex_parameters_are_refused_with_the_way_out(opt):
    params = jax.tree.map(lambda p: p + 1j * p[::-1], parameters())
    with pytest.raises(ValueError, match="split_real_and_imaginary"):
        opt().init(params)
    split = optax.contrib.split_real_and_imaginary(opt())
    if opt.extra_args:  # which that wrapper does not pass on
        return
    after, _ = jax.eval_shape(stepper(opt, split), params, jax.eval_shape(split.init, params))
    assert {p.dtype for p in after.values()} == {np.dtype("complex64")}


# A function such as the loss holds explicit arrays of its own.
@pytest.mark.parametrize(
    "opt", [opt for opt in ALL if not FUNCTIONS & opt.extra_args], ids=NAMED["ids"]
)
def test_parameters_may_be_sharded_over_an_explicit_mesh(opt):
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        params, rule = sharded(parameters(), mesh), opt()
        begun = (params, rule.init(params))
        after = jax.eval_shape(jax.jit(stepper(opt, rule)), *begun)
    for old, new in zip(jax.tree.leaves(begun), jax.tree.leaves(after), strict=True):
        assert jax.typeof(old) == jax.typeof(new)


def sharded(params, mesh):
    return {name: jax.device_put(p, NamedSharding(mesh, SPECS[name])) for name, p in params.items()}


@pytest.mark.parametrize("opt", [opt for opt in ALL if "lr" in opt.scheduled], ids=NAMED["ids"])
def test_hyperparameters_can_be_injected(opt):
    params = parameters()
    rule = optax.inject_hyperparams(opt, opt.static_args)(learning_rate=0.1)
    state = jax.eval_shape(rule.init, params)
    jax.eval_shape(stepper(opt, rule), params, state)
    assert "learning_rate" in state.hyperparams


def test_static_arguments_are_those_that_are_not_floats():
    assert {"block_size", "update_every", "stagger", "root_solver"} <= {*shampoo.static_args}
    assert not {"learning_rate", "b1", "b2", "epsilon", "tolerance"} & {*shampoo.static_args}
    assert "block_size" in static_args(scale_by_soap)
    assert "epsilon" not in static_args(scale_by_soap)


def test_a_call_takes_what_the_decorated_function_takes():
    with pytest.raises(TypeError, match=r"shampoo\(\): got an unexpected keyword argument 'lrr'"):
        shampoo(lrr=1.0)
    with pytest.raises(TypeError, match=r"multiple values"):
        shampoo(0.1, lr=0.1)
    params = {"w": random((6, 4))}
    steps = []
    for rule in (
        shampoo(0.1),
        shampoo(lr=0.1),
        shampoo(learning_rate=lambda count: 0.1 * jnp.ones_like(count, jnp.float32)),
        shampoo.build({"lr": 0.1, "warmup": 1e-9}, 10**9),
    ):
        steps.append(rule.update(params, rule.init(params), params)[0]["w"])
    for other in steps[1:]:
        np.testing.assert_allclose(steps[0], other, rtol=1e-6)


# For optax's suite, in which rules minimise small functions in a fixed number of steps. optax has
# such a list for its own rules.
RATES = (
    dict.fromkeys(("dog", "sm3"), 1.0)
    | dict.fromkeys(("dadapt_adamw", "dowg", "prodigy", "splus"), 0.1)
    | dict.fromkeys(("lamb", "lion", "momentum", "nesterov", "scion", "sgd", "sign_sgd"), 1e-3)
    | {"shampoo_funmatch": 1e-3}
)
SETTINGS = {"muon": {"momentum": 0.95}}  # as optax's own list
# Tests that cannot pass: the suite gives the loss as a function to no rule but optax's own. LARS
# does not leave parameters that are zero; SPlus is evaluated at an average of its parameters;
# SOAP-Muon magnifies the rounding errors by which a traced hyperparameter differs from a constant.
NOT_FOR_THE_SUITE = {"lbfgs": 15, "sam": 16, "lars": 1, "splus": 2, "soap_muon": 1}


@pytest.mark.long
def test_shampoo_soap_and_muon_pass_the_suite_of_optax():
    """Its 16 tests of each."""
    assert not failures_in_the_suite(MATRICES)


@pytest.mark.long
@pytest.mark.parametrize("opt", **NAMED)
def test_every_built_in_passes_the_suite_of_optax(opt):
    failed = {name.split()[0] for name in failures_in_the_suite([opt])}
    assert len(failed) <= NOT_FOR_THE_SUITE.get(opt.name, 0), failed


def failures_in_the_suite(optimizers):
    settings = {
        opt.name: SETTINGS.get(opt.name, {})
        | ({"learning_rate": RATES.get(opt.name, 1e-2)} if "lr" in opt.defaults else {})
        for opt in optimizers
    }
    outcome = unittest.TestResult()
    for case in cases({opt.name: opt for opt in optimizers}, settings):
        case.run(outcome)
    assert outcome.testsRun == 16 * len(optimizers)
    return [f"{case}: {text}" for case, text in outcome.failures + outcome.errors]


@pytest.mark.parametrize("make", [scale_by_shampoo, scale_by_soap])
def test_stacked_kernels_are_as_many_kernels(make):
    """[layers, inputs, outputs] and [inputs, heads, size] with dimension numbers, against the
    same matrices one by one."""
    layers, query = random((3, 6, 5), 1), random((6, 2, 4), 2)
    axes = {"layers": MuonDimensionNumbers(1, 2), "query": MuonDimensionNumbers(0, (1, 2))}
    stacked = make(dimension_numbers=axes, block_size=4, epsilon=1e-3)
    apart = make(block_size=4, epsilon=1e-3)
    held = {"layers": layers, "query": query}
    singles = {f"{i}": layers[i] for i in range(3)} | {"query": query.reshape(6, 8)}
    state, state_apart = stacked.init(held), apart.init(singles)
    for i in range(3):
        g = {name: p + random(p.shape, 7 * i + len(name)) for name, p in held.items()}
        split = {f"{i}": g["layers"][i] for i in range(3)} | {"query": g["query"].reshape(6, 8)}
        updates, state = stacked.update(g, state)
        expected, state_apart = apart.update(split, state_apart)
    for i in range(3):
        assert distance(updates["layers"][i], np.asarray(expected[f"{i}"])) < 1e-5
    assert distance(updates["query"].reshape(6, 8), np.asarray(expected["query"])) < 1e-5


def test_grafting_takes_norms_of_each_stacked_kernel():
    layers = random((3, 6, 5), 1) * jnp.asarray([1.0, 10.0, 100.0])[:, None, None]
    axes = {"w": MuonDimensionNumbers(1, 2)}
    rule = shampoo(0.1, grafting="sgd", dimension_numbers=axes)
    updates, _ = rule.update({"w": layers}, rule.init({"w": layers}), {"w": 0 * layers})
    norms = np.linalg.norm(np.asarray(updates["w"]), axis=(1, 2))
    np.testing.assert_allclose(norms, 0.1 * np.linalg.norm(layers, axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize("numbers", [MuonDimensionNumbers(0, 5), MuonDimensionNumbers(0, (0, 1))])
def test_dimension_numbers_that_do_not_fit_are_refused(numbers):
    with pytest.raises(ValueError, match=r"does not fit a parameter of shape|names an axis twice"):
        scale_by_shampoo(dimension_numbers={"w": numbers}).init({"w": jnp.ones((4, 3))})


@pytest.mark.slow
@pytest.mark.parametrize("explicit", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", RULES)
def test_sharded_parameters_give_the_numbers_of_one_device_and_divide_the_state(name, explicit):
    """FSDP: each device keeps a quarter of the state, at most 1.3 times that for what is left."""
    shapes = {"up": (64, 128), "down": (128, 64), "bias": (64,)}
    devices = jax.devices()[:4]
    mesh = (
        jax.make_mesh((4,), ("data",), devices=devices)
        if explicit
        else Mesh(np.array(devices), ("data",))
    )
    split = NamedSharding(mesh, P("data"))
    given = {"block_size": 32, "update_every": 2, "epsilon": 1e-3}
    alone, spread = RULES[name](**given), RULES[name](mesh=mesh, **given)
    params = {key: jnp.zeros(shape) for key, shape in shapes.items()}
    state = alone.init(params)
    placed = jax.tree.map(lambda p: jax.device_put(p, split), params)
    state_spread = spread.init(placed)
    update = jax.jit(spread.update)
    for i in range(3):
        g = {key: random(shape, i) + random(shape, 9) for key, shape in shapes.items()}
        expected, state = jax.jit(alone.update)(g, state)
        found, state_spread = update(
            jax.tree.map(lambda x: jax.device_put(x, split), g), state_spread, placed
        )
        for key in shapes:
            assert distance(found[key], np.asarray(expected[key])) < 1e-4
    for held in (spread.init(placed), state_spread):
        first = sum(
            shard.data.nbytes
            for leaf in jax.tree.leaves(held)
            for shard in leaf.addressable_shards
            if shard.device == devices[0]
        )
        assert first < 1.3 / 4 * sum(leaf.nbytes for leaf in jax.tree.leaves(held))


@pytest.mark.parametrize("opt", MATRICES, ids=NAMED["ids"])
def test_orbax_saves_and_restores_a_state(opt, tmp_path):
    rule, params = opt(), {"w": random((6, 4)), "b": random(4)}
    _, state = rule.update(params, rule.init(params), params)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)

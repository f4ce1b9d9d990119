"""Declaring optimizers, finding them in the registry, and the built-in optimizers."""

from __future__ import annotations

import math
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizers import Choice, Decay, Log, Schedule, Uniform, optimizer
from optimizers.contract import registry, schedules, source_digest
from support.paths import ROOT


@optimizer
def example(
    lr: Annotated[Schedule, Log(1e-3, 1e-1)] = 1e-2,
    *,
    b1: Annotated[float, Uniform(0.8, 1)] = 0.9,
    nesterov: bool = False,
    k: int = 3,
):
    """An example."""
    return optax.chain(optax.trace(b1, nesterov), optax.scale_by_learning_rate(lr))


def test_a_declaration_is_read_from_the_signature():
    assert example.name == "example"
    assert example.doc == "An example."
    warmup = {"warmup": Log(0.03, 0.5)}  # that of the default schedule
    assert example.space == {"lr": Log(1e-3, 1e-1), "b1": Uniform(0.8, 1)} | warmup
    own = {"lr": 1e-2, "b1": 0.9, "nesterov": False, "k": 3}
    assert example.defaults == own | {"warmup": 0.1}
    assert example.of_schedule == {"warmup"}
    assert example.scheduled == {"lr"}
    assert example.builder is example.builder


@given(u=st.floats(0, 1))
def test_domains_map_fractions_to_values_inside_them(u):
    assert 1e-3 * (1 - 1e-9) <= Log(1e-3, 1e-1).at(u) <= 1e-1 * (1 + 1e-9)
    assert Log(1e-3, 1e-1).at(0.5) == pytest.approx(1e-2)
    assert 2 <= Uniform(2, 5).at(u) <= 5
    assert 0.9 - 1e-9 <= Decay(0.9, 0.999).at(u) <= 0.999 + 1e-9
    assert Choice("a", "b", "c").at(u) == "abc"[min(int(3 * u), 2)]


@given(u=st.floats(0, 1))
@pytest.mark.parametrize(
    "domain", [Log(1e-4, 3.0), Uniform(-2, 5), Decay(0.0, 0.9), Decay(0.9, 0.9999)], ids=str
)
def test_fractions_are_the_inverse_of_values(domain, u):
    assert domain.fraction(domain.at(u)) == pytest.approx(u, abs=1e-9)
    assert domain.at(domain.fraction(domain.at(u))) == pytest.approx(domain.at(u))
    assert (domain.fraction(domain.low), domain.fraction(domain.high)) == pytest.approx((0, 1))


@given(u=st.floats(0, 1), n=st.integers(1, 9))
def test_the_fraction_of_a_choice_is_the_middle_of_its_part(u, n):
    choice = Choice(*range(n))
    assert choice.fraction(choice.at(u)) == pytest.approx((choice.at(u) + 0.5) / n)
    assert choice.at(choice.fraction(choice.at(u))) == choice.at(u)


@given(u=st.floats(0, 1))
def test_a_decay_spreads_the_number_of_steps_that_an_average_remembers(u):
    decay, steps = Decay(0.9, 0.999), Log(10, 1000)
    assert 1 / (1 - decay.at(u)) == pytest.approx(steps.at(u))
    assert decay.at(0.5) == pytest.approx(0.99)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Log(0, 1),
        lambda: Log(2, 1),
        lambda: Uniform(1, 1),
        lambda: Choice(),
        lambda: Decay(0.9, 0.9),
        lambda: Decay(-0.1, 0.9),
        lambda: Decay(0.9, 1.0),
    ],
)
def test_empty_domains_are_refused(make):
    with pytest.raises(ValueError, match=r"is not a range|has no values"):
        make()


def test_bad_declarations_are_refused_with_a_reason():
    def no_default(lr):
        return optax.sgd(lr)

    def variadic(**hparams):
        return optax.sgd(1.0)

    def two(lr: Annotated[Schedule, Log(1, 2), Uniform(1, 2)] = 1.0):
        return optax.sgd(lr)

    def reserved(horizon: float = 1.0):
        return optax.sgd(1.0)

    for function, message in [
        (no_default, "'lr' of no_default has no default"),
        (variadic, "cannot be passed by keyword"),
        (two, "2 search domains"),
        (reserved, "reserved"),
    ]:
        with pytest.raises(TypeError, match=message):
            optimizer(function)
    with pytest.raises(ValueError, match=r"Unknown schedule .*'cosine'"):
        optimizer(schedule="cosine")(two)


def test_a_function_must_return_a_transformation():
    @optimizer
    def wrong(lr: Schedule = 0.1):
        return lr

    with pytest.raises(TypeError, match=r"wrong\(\) returned"):
        wrong.build({}, 10)


@pytest.mark.parametrize("horizon", [1, 10, 250, 4000])
def test_the_schedule_warms_up_and_decays_to_zero(horizon):
    rates = np.asarray(schedules.warmup_cosine(0.3, horizon)(np.arange(horizon + 1)), np.float64)
    w = max(0.1 * horizon, 1.0)
    t = np.arange(horizon + 1)
    decay = np.clip((t + 1 - w) / max(horizon - w + 1, 1.0), 0, 1)
    np.testing.assert_allclose(
        rates, 0.3 * np.minimum((t + 1) / w, 0.5 * (1 + np.cos(math.pi * decay))), atol=1e-6
    )
    assert rates[:-1].min() > 0
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert rates.max() <= 0.3 * (1 + 1e-6)


def test_a_constant_schedule_stays_constant():
    constant = optimizer(schedule="constant")(example.make)
    assert np.asarray(
        constant.learning_rate({"lr": 0.5}, 100, jnp.arange(3))
    ).tolist() == pytest.approx(0.5)


def test_the_builtins_are_listed_without_importing_them():
    assert {"adamw", "muon", "nesterov", "shampoo", "soap"} <= set(registry.builtins())


def write(path, text):
    path.write_text("from optimizers import optimizer\nimport optax\n" + text)
    return path


DECLARATION = "@optimizer\ndef {}(lr: float = 0.1):\n    return optax.sgd(lr)\n"


def test_files_packages_and_names_resolve(tmp_path, monkeypatch):
    one = write(tmp_path / "one.py", DECLARATION.format("mine"))
    assert registry.resolve(str(one)).optimizer.name == "mine"
    two = write(tmp_path / "two.py", DECLARATION.format("a") + DECLARATION.format("b"))
    assert registry.resolve(f"{two}:b").optimizer.name == "b"
    with pytest.raises(registry.UnknownOptimizer, match="declares 2 optimizers"):
        registry.resolve(str(two))
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.resolve("one:mine").optimizer.name == "mine"
    assert registry.resolve("adamw").optimizer.name == "adamw"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shampo", "Did you mean 'shampoo'"),
        ("./missing.py", "No file './missing.py' found"),
        ("no_such_package:attr", "No package 'no_such_package' found"),
        ("optimizers.adamw:missing", "declares no optimizer 'missing'. It declares: adamw"),
    ],
)
def test_unknown_optimizers_are_refused(spec, message):
    with pytest.raises(registry.UnknownOptimizer, match=message):
        registry.resolve(spec)


def test_the_source_digest_follows_imports_inside_the_package():
    shampoo = ROOT / "optimizers" / "shampoo.py"
    roots = "optimizers/kronecker/roots.py"
    files = source_digest.source_files(shampoo)
    assert source_digest.source_sha256(shampoo) == source_digest.digest(files)
    assert source_digest.digest(files | {roots: files[roots] + "EXTRA = 1\n"}) != (
        source_digest.digest(files)
    )
    assert roots not in source_digest.source_files(ROOT / "optimizers" / "adamw.py")


def test_the_source_digest_depends_on_code_and_not_on_comments():
    plain = 'def f(x):\n    return "#é" + x\n'
    same = (
        '"""About\n\nthis."""\n# why\n\n'
        'def f(x):  # é\n    """é: """  # what\n    return "#é" + x  # so\n'
    )
    assert source_digest.digest({"a.py": plain}) == source_digest.digest({"a.py": same})
    for other in (
        'def f(x):\n    return "#e" + x\n',
        'def f(x): "doc"; return x\n',
        "def g(x): 'doc'\n",
    ):
        assert source_digest.digest({"a.py": plain}) != source_digest.digest({"a.py": other})
    assert source_digest.digest({"a.py": 'def f(x): "doc"; return x\n'}) != source_digest.digest(
        {"a.py": 'def g(x): "doc"; return x\n'}
    )
    assert source_digest.digest({"a.py": plain}) != source_digest.digest({"b.py": plain})


def test_every_built_in_is_summed_up_in_one_line_as_its_docstring_begins():
    summaries = registry.summaries()
    assert list(summaries) == registry.builtins()
    for name, summary in summaries.items():
        doc = registry.resolve(name).optimizer.doc
        assert doc.startswith(summary)
        assert 20 < len(summary) <= 96  # a docstring line
        assert summary.endswith(".")


def test_a_horizon_counts_gradient_evaluations():
    assert registry.resolve("adamw").optimizer.steps(250) == 250
    assert registry.resolve("sam").optimizer.steps(250) == 125
    assert registry.resolve("lbfgs").optimizer.steps(24) == 10


def test_custom_schedules_work_and_bad_options_are_refused():
    halves = optimizer(schedule=lambda peak, steps: lambda count: peak * 0.5**count)(example.make)
    assert np.asarray(halves.learning_rate({"lr": 1.0}, 10, np.arange(3))).tolist() == [
        1.0,
        0.5,
        0.25,
    ]
    with pytest.raises(ValueError, match="Unknown extra argument 'loss'"):
        optimizer(extra_args=("loss",))(example.make)
    with pytest.raises(ValueError, match=r"evaluations=0\.5"):
        optimizer(evaluations=0.5)(example.make)


def test_a_schedule_may_take_hyperparameters():
    def ramp(peak, steps, *, k, power=1):
        return lambda count: peak * (count / k) ** power

    opt = optimizer(schedule=ramp)(example.make)
    assert np.asarray(opt.learning_rate({"lr": 6.0}, 10, np.arange(2))).tolist() == [0.0, 2.0]
    assert opt.learning_rate({"lr": 6.0, "k": 2}, 10, 1) == 3.0
    gradient, state = jnp.ones(1), opt.build({"b1": 0.0, "lr": 6.0, "k": 2}, 10).init(jnp.ones(1))
    for expected in (0.0, -3.0, -6.0):
        updates, state = opt.build({"b1": 0.0, "lr": 6.0, "k": 2}, 10).update(gradient, state)
        assert float(updates[0]) == expected

    def other(peak, steps, *, warmup):
        return lambda count: peak

    with pytest.raises(TypeError, match="'warmup' of the schedule of example has no default"):
        optimizer(schedule=other)(example.make)


def test_a_schedules_hyperparameters_join_the_space():
    def ramp(peak, steps, *, floor: Annotated[float, Uniform(0, 0.5)] = 0.0, power: float = 1):
        return lambda count: peak * (floor + (1 - floor) * (count / steps) ** power)

    opt = optimizer(schedule=ramp)(example.make)
    own = {name: domain for name, domain in example.space.items() if name != "warmup"}
    assert opt.space == own | {"floor": Uniform(0, 0.5)}
    assert opt.defaults["floor"] == 0.0
    assert isinstance(opt.defaults["power"], float)
    assert opt.of_schedule == {"floor", "power"}
    assert float(opt.learning_rate({"lr": 2.0, "floor": 0.5}, 10, 5)) == 1.5
    assert float(opt.learning_rate({"lr": 2.0, "power": 2.0}, 10, 5)) == 0.5
    rule = opt.build({"lr": 2.0, "b1": 0.0, "floor": 0.5}, 10)  # `make` does not take `floor`
    updates, _ = rule.update(jnp.ones(1), rule.init(jnp.ones(1)))
    assert float(updates[0]) == -1.0


def test_an_optimizer_decides_on_a_schedules_hyperparameter_that_it_declares():
    @optimizer
    def mine(lr: Schedule = 0.1, warmup: float = 0.5):
        return optax.sgd(lr)

    assert (mine.space, mine.defaults["warmup"], mine.of_schedule) == ({}, 0.5, frozenset())
    assert float(mine.learning_rate({}, 100, 0)) == pytest.approx(0.1 / 50)

    @optimizer
    def yours(lr: Schedule = 0.1, warmup: Annotated[float, Uniform(0.1, 0.2)] = 0.1):
        return optax.sgd(lr)

    assert yours.space == {"warmup": Uniform(0.1, 0.2)}

    @optimizer
    def unscheduled(lr: float = 0.1):
        return optax.sgd(lr)

    assert unscheduled.defaults == {"lr": 0.1}


def test_a_schedule_with_two_domains_is_refused():
    def ramp(peak, steps, *, floor: Annotated[float, Uniform(0, 1), Log(1, 2)] = 0.0):
        return lambda count: peak

    with pytest.raises(TypeError, match="'floor' of the schedule of example has 2 search domains"):
        optimizer(schedule=ramp)(example.make)


@pytest.mark.parametrize("schedule", ["warmup_cosine", "warmup_constant"])
def test_warm_up_is_a_searched_fraction_of_the_run(schedule):
    opt = optimizer(schedule=schedule)(example.make)
    assert opt.space["warmup"] == Log(0.03, 0.5)
    rates = opt.learning_rate({"lr": 1.0, "warmup": 0.25}, 100, jnp.arange(30))
    np.testing.assert_allclose(rates[:25], (np.arange(25) + 1) / 25, rtol=1e-6)
    assert float(rates[24]) == pytest.approx(1.0) == float(np.max(rates))
    none = opt.learning_rate({"lr": 1.0, "warmup": 0.0}, 100, jnp.arange(2))
    assert float(none[0]) == pytest.approx(1.0)


# Rules of a paper's runs have its settings; the rest search what the field tunes.
AS_PUBLISHED = {"adamw_funmatch", "shampoo_funmatch"}


@pytest.mark.parametrize("name", registry.builtins())
def test_a_builtin_searches_what_the_field_tunes(name):
    opt = registry.resolve(name).optimizer
    for hyperparameter, domain in opt.space.items():
        if hyperparameter in ("b1", "b2", "momentum"):
            assert isinstance(domain, Decay)
        if isinstance(domain, Choice):  # None: each matrix its own
            assert opt.defaults[hyperparameter] in (None, *domain.values)
        else:
            assert 0 <= domain.fraction(opt.defaults[hyperparameter]) <= 1
    if name in AS_PUBLISHED:
        return
    # Shampoo averages gradients with b1, and its `momentum` goes on top of that.
    momentum = {"b1"} & opt.defaults.keys() or {"momentum"} & opt.defaults.keys()
    wanted = (momentum | {"weight_decay", "warmup"}) & opt.defaults.keys()
    assert wanted <= opt.space.keys()
    warms_up = opt.schedule in (schedules.warmup_cosine, schedules.warmup_constant)
    assert ("warmup" in opt.space) == bool(opt.scheduled and warms_up)


def test_the_baseline_searches_all_of_it():
    space = registry.resolve("adamw").optimizer.space
    assert space.keys() == {"lr", "b1", "b2", "weight_decay", "warmup"}


def test_muon_orthogonalises_convolutions_as_matrices():
    rule = registry.resolve("muon").optimizer.build({"weight_decay": 0.0}, 100)
    params = {"conv": jnp.ones((3, 3, 4, 6)), "dense": jnp.ones((8, 5))}
    gradients = jax.tree.map(
        lambda p: jnp.asarray(np.random.default_rng(0).standard_normal(p.shape), jnp.float32),
        params,
    )
    updates, _ = rule.update(gradients, rule.init(params), params)
    for update in updates.values():
        values = np.linalg.svd(np.asarray(update).reshape(-1, update.shape[-1]), compute_uv=False)
        # Newton-Schulz leaves singular values between about 0.7 and 1.2.
        assert values.max() / values.min() < 2

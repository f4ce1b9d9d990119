"""Settings that change numbers, set by the environment or by an optimizer's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

from distill_bench import command, settings
from distill_bench.errors import UserError
from distill_bench.training import numerics
from distill_bench.training.events import Finished, Losses
from distill_bench.training.rules import Lane
from distill_bench.training.train import train
from support.paths import CALM
from support.stores import Silent, contents
from sweeps.execution import ray_executor
from sweeps.execution.execute import execute
from sweeps.execution.request import Faults
from sweeps.execution.resources import Resources
from sweeps.planning import environment, plug_ins
from sweeps.planning.plan import make_plan

VARIABLES = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_DEFAULT_MATMUL_PRECISION": "bfloat16",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_DEBUG_NANS": "1",
    "JAX_DISABLE_JIT": "1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_RANDOM_SEED_OFFSET": "3",
    "OPENBLAS_CORETYPE": "Sandybridge",
    "OPENBLAS_NUM_THREADS": "2",
    "NPROC": "3",
}
CHANGES = [
    ("jax_enable_x64", True),
    ("jax_default_prng_impl", "rbg"),
    ("jax_threefry_partitionable", False),
    ("jax_default_matmul_precision", "bfloat16"),
    ("jax_numpy_dtype_promotion", "strict"),
    ("jax_debug_nans", True),
    ("jax_disable_jit", True),
    ("jax_random_seed_offset", 3),
]
PLUG_IN = """
import os
import jax, optax
from optimizers import Schedule, optimizer

{at_import}

@optimizer(schedule="constant")  # nothing to tune
def meddler(lr: Schedule = 0.1):
    {at_build}
    return optax.sgd(lr)
"""


@pytest.fixture
def harness():
    """The settings before and after a test, so that none leaks into the next."""
    before = settings.current()
    yield before
    before.restore()


def sgd(hparams, horizon):
    return optax.sgd(hparams["lr"])


def ends_and_losses(engine, lanes):
    ends, losses = {}, {}
    for event in train(engine, lanes):
        match event:
            case Losses(lane, _, values):
                losses.setdefault(lane, []).extend(values.tolist())
            case Finished(lane, status, _, detail):
                ends[lane] = status, detail
    return ends, losses


@pytest.mark.long
def test_variables_that_change_numbers_are_ignored_and_named(script, tmp_path, monkeypatch):
    flags = [f"--opt={CALM}", "--horizons=20", "--trials=1", "--seeds=1"]
    assert script("run", *flags).returncode == 0
    undisturbed = contents(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "undisturbed")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    done = script("run", *flags)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "runs") == undisturbed
    assert "JAX_ENABLE_X64=1" in done.stderr
    for name in VARIABLES.keys() - {"NPROC", "OPENBLAS_NUM_THREADS"}:
        assert f"{name}={VARIABLES[name]}" in done.stderr, name


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--xla_cpu_enable_fast_math=true", "--xla_cpu_enable_fast_math=true"),
        ("--xla_dump_to=x --xla_gpu_enable_fast_min_max=true", "--xla_gpu_enable_fast_min_max"),
        ("flags.txt", "names a file"),
    ],
)
def test_flags_of_xla_that_make_numbers_unknown_are_refused(script, monkeypatch, flags, said):
    monkeypatch.setenv("XLA_FLAGS", flags)
    done = script("run", "--opt=adamw")
    assert done.returncode == command.MISUSED
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_other_flags_of_xla_are_part_of_a_study(monkeypatch):
    environment.versions()  # jax reads XLA_FLAGS when it first compiles; it must not obey these
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    plain = environment.versions()
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x --xla_allow_excess_precision=false")
    assert environment.versions() == plain | {"xla_flags": "--xla_allow_excess_precision=false"}


def test_the_fingerprint_of_the_arithmetic_differs_with_the_instructions():
    program = "from distill_bench.training import numerics; print(numerics.fingerprint())"

    def fingerprint(flags):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"XLA_FLAGS": flags},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    own = fingerprint(os.environ["XLA_FLAGS"])
    assert own == numerics.fingerprint()  # here with eight devices and threads, there with one
    assert own != fingerprint("--xla_cpu_max_isa=AVX --xla_cpu_enable_fast_math=true")


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_a_plug_in_that_changes_a_setting_at_import_is_named(tmp_path, harness, name, value):
    path = tmp_path / "meddler.py"
    path.write_text(
        PLUG_IN.format(at_import=f"jax.config.update({name!r}, {value!r})", at_build="")
    )
    _, changed = plug_ins.resolve_watched(str(path))
    assert [line.split(" = ")[0] for line in changed] == [name]
    assert settings.current() == harness


def test_a_plug_in_cannot_change_variables_for_others(tmp_path, harness, monkeypatch):
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    path = tmp_path / "meddler.py"
    lines = "os.environ['JAX_ENABLE_X64'] = '1'\nos.environ.pop('XLA_FLAGS')"
    path.write_text(PLUG_IN.format(at_import=lines, at_build=""))
    _, changed = plug_ins.resolve_watched(str(path))
    assert changed == ["JAX_ENABLE_X64 = 1", "XLA_FLAGS unset"]
    assert settings.current() == harness


def test_a_context_that_is_never_left_is_refused(tmp_path, harness):
    path = tmp_path / "meddler.py"
    lines = "context = jax.enable_x64(True)\ncontext.__enter__()"
    path.write_text(PLUG_IN.format(at_import=lines, at_build=""))
    # A context belongs to its thread, so this one takes it to its end.
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(plug_ins.resolve, str(path)).exception()
    assert isinstance(error, UserError)
    assert "jax_enable_x64 was changed to True and cannot be set back" in str(error)
    assert settings.current() == harness


@pytest.mark.long
def test_a_rule_that_changes_a_setting_while_it_is_traced_ends_alone(tiny_engine, harness):
    def meddler(hparams, horizon):
        jax.config.update("jax_enable_x64", True)
        return optax.sgd(hparams["lr"])

    lane = Lane(sgd, {"lr": 0.1}, 20, seed=0)
    _, alone = ends_and_losses(tiny_engine, [lane])
    ends, losses = ends_and_losses(tiny_engine, [Lane(meddler, {"lr": 0.1}, 20, seed=0), lane])
    assert ends[0][0] == "crashed"
    assert "jax_enable_x64 = True" in ends[0][1]
    assert ends[1] == ("ok", None)
    assert losses == {1: alone[0]}
    assert settings.current() == harness


def test_a_rule_that_changes_a_setting_while_it_is_compiled_ends_alone(tiny_engine, harness):
    traced = []

    def meddler(hparams, horizon):
        traced.append(horizon)
        if len(traced) > 1:  # not when it is tried, only for the program that trains
            jax.config.update("jax_default_matmul_precision", "bfloat16")
        return optax.sgd(hparams["lr"])

    def momentum(hparams, horizon):
        return optax.sgd(hparams["lr"], momentum=0.5)

    lanes = [Lane(build, {"lr": 0.1}, 20, seed=0) for build in (meddler, momentum)]
    ends, losses = ends_and_losses(tiny_engine, lanes)
    assert ends[0][0] == "crashed"
    assert "jax_default_matmul_precision = bfloat16" in ends[0][1]
    assert ends[1] == ("ok", None)
    _, alone = ends_and_losses(tiny_engine, [Lane(momentum, {"lr": 0.1}, 20, seed=0)])
    np.testing.assert_array_equal(losses[1], alone[0])
    assert settings.current() == harness


@pytest.mark.long
def test_a_sweep_names_the_meddler_and_the_others_keep_their_numbers(script, tmp_path):
    flags = ["--horizons=20", "--trials=1", "--seeds=1"]
    assert script("run", f"--opt={CALM}", *flags).returncode == 0
    alone = contents(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "alone")
    path = tmp_path / "meddler.py"
    path.write_text(
        PLUG_IN.format(at_import='jax.config.update("jax_enable_x64", True)', at_build="")
    )
    done = script("run", f"--opt={path},{CALM}", *flags)
    assert done.returncode == 0, done.stderr
    assert "meddler.py changes settings while it is imported: jax_enable_x64 = True" in done.stderr
    both = contents(tmp_path / "runs")
    assert {name: text for name, text in both.items() if "meddler" not in str(name)} == alone


def test_a_ray_worker_with_other_versions_is_refused(tiny_task, monkeypatch):
    monkeypatch.setattr("sweeps.cli.set_up_jax", lambda *_: None)  # jax runs already
    expected = environment.versions() | {"numerics": "00000000"}
    given = (tiny_task.name, Resources(cache=None), expected, str(CALM), [], False, None)
    with pytest.raises(UserError, match=r"would compute other numbers.*numerics"):
        ray_executor._unit(*given)


def test_shards_with_other_versions_are_refused(request_of, layouts, tmp_path):
    plan = make_plan(request_of("20", opts=[CALM]))
    folder = tmp_path / "tiny" / "calm-000000000000"
    folder.mkdir(parents=True)
    study = plan.candidates[0].study
    content = json.loads(json.dumps(study.__dict__)) | {"spec": str(CALM), "sources": {}}
    content["versions"] = {**study.versions, "jax": "0.9"}
    (folder / "study.json").write_text(json.dumps(content))
    sharded = replace(plan, shard=(1, 2))
    with pytest.raises(UserError, match=f"jax 0.9, here {jax.__version__}"):
        execute(sharded, tmp_path, Silent(), Resources(), Faults())

"""Plug-ins and places that get in the way of a whole sweep, in real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest

from support.paths import CALM
from support.processes import is_running, wait_until
from support.stores import rows
from sweeps.execution.printed import HEAD, TAIL

# All this is rude, but no reason why anything should go wrong.
RUDE = """
import os, pathlib, stat
import jax, jax.numpy as jnp, optax
import helper
from optimizers import Schedule, optimizer

os.chdir("/")
jax.config.update("jax_disable_jit", True)
print("\\u00e9 \\u00b1", "x" * 5_000_000)
for descriptor in range(3, 256):
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.write(descriptor, b'["done", []]\\n["failed", "forged"]\\n\\xff{"')
    except OSError:
        pass

def only_inside_jit(value, horizon):
    return lambda count: jnp.float32(value) * count.at[...].set(1)

@optimizer(schedule=only_inside_jit)
def rude(lr: Schedule = 0.1):
    return optax.scale_by_learning_rate(lr)
"""
HIDES = "raise ImportError('a file of the user')"


@pytest.mark.long
def test_rude_plug_ins_in_a_folder_full_of_traps_cost_nothing(script, tmp_path, monkeypatch):
    (tmp_path / "rude.py").write_text(RUDE)
    shutil.copy(CALM, tmp_path / "second.py")
    (tmp_path / "helper.py").write_text("")
    for name in ("jax", "numpy", "optimizers", "sweeps", "distill_bench"):
        (tmp_path / f"{name}.py").write_text(HIDES)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], "", "."]))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    monkeypatch.setenv("COLUMNS", "40")
    # Relative paths: the plug-in has left the folder when they are used.
    flags = ["--opt=./rude.py,./second.py", "--outdir=out", "--export=students"]
    command = script.command("run", *flags, "--horizons=20", "--trials=1", "--seeds=2")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Warning") == 1
    assert "changes settings while it is imported: jax_disable_jit = True" in done.stderr
    assert "+-" in done.stdout
    assert done.stdout.isascii()
    found = {row["opt"]: row["status"] for row in rows(script, f"--outdir={tmp_path / 'out'}")}
    assert (found["rude"], found["calm"]) == ("ok", "ok")
    log = (tmp_path / "out" / "worker.log").read_bytes()
    assert log.startswith(("é ± xxx".encode(), b"? +- xxx"))
    assert len(log) < HEAD + TAIL + 100
    assert len(list((tmp_path / "students").glob("*.npz"))) == 4


# It starts a program that outlives it, and waits for the test to act once it is trained, after the
# checks that come before.
WAITS = """
import pathlib, subprocess, time
import jax, jax.numpy as jnp, numpy as np, optax
from optimizers import Schedule, optimizer

here = pathlib.Path(__file__).parent
child = subprocess.Popen(["sleep", "1000"], close_fds=False)

def wait(count):
    if count == 40 and list(here.rglob("records.jsonl")):
        (here / "child").write_text(str(child.pid))
        (here / "waiting").touch()
        while not (here / "go").exists():
            time.sleep(0.05)
    return np.float32(1)

@optimizer(schedule="constant")
def waits(lr: Schedule = 0.1):
    def update(updates, count, params=None):
        factor = jax.pure_callback(wait, jax.ShapeDtypeStruct((), jnp.float32), count)
        return jax.tree.map(lambda u: -lr(count) * factor * u, updates), count + 1
    return optax.GradientTransformation(lambda params: jnp.int32(0), update)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "act", ["the folder goes away", pytest.param("the terminal goes away", marks=pytest.mark.long)]
)
def test_what_an_optimizer_does_not_cause_is_not_blamed_on_it(script, tmp_path, act):
    (tmp_path / "waits.py").write_text(WAITS)
    command = script.command(
        "run", f"--opt={tmp_path / 'waits.py'}", "--horizons=60", "--trials=1", "--seeds=1"
    )
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            wait_until(lambda: (tmp_path / "waiting").exists() or process.poll() is not None)
            if act == "the folder goes away":
                (tmp_path / "runs").rename(tmp_path / "elsewhere")
                (tmp_path / "go").touch()
            else:
                process.send_signal(signal.SIGHUP)
                process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=1200)[1]
        finally:
            process.kill()
    assert "Traceback" not in said
    assert "a defect" not in said
    assert not list(tmp_path.rglob("result.json"))
    wait_until(lambda: not is_running(int((tmp_path / "child").read_text())))
    if act == "the folder goes away":
        assert process.returncode == 1, said
        assert f"{tmp_path / 'runs'}" in said
        assert "cannot be used: No such file or directory" in said
    else:
        assert process.returncode in (129, 130), said
        assert "Interrupted. The same command continues from the last checkpoint." in said

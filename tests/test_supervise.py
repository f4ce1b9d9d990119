"""Plug-ins that hang, die or use up memory, and checkpoints of killed sweeps, in real processes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time

import pytest

from support import tiny
from support.paths import CALM
from support.processes import is_running
from support.stores import contents, rows

# It fails in its compiled program, at the 40th update, and in another way when it runs again.
PLUG_IN = """
import ctypes, os, pathlib, subprocess, time
import jax, jax.numpy as jnp, numpy as np, optax
from optimizers import Schedule, optimizer

tried = pathlib.Path(__file__).with_name("tried")

def leave_a_child():
    child = subprocess.Popen(["sleep", "1000"], close_fds=False)  # it holds all that is open
    tried.write_text(str(child.pid))
    os._exit(7)

def hoard():
    kept = bytearray(3 << 30)
    kept[::4096] = b"x" * len(kept[::4096])
    time.sleep(100)

def misbehave(count):
    if count == 40 and tried.exists():
        {second}
    if count == 40:
        tried.touch()
        {first}
    return np.float32(1)

@optimizer(schedule="constant")  # nothing to tune
def mine(lr: Schedule = 0.1):
    def update(updates, count, params=None):
        factor = jax.pure_callback(misbehave, jax.ShapeDtypeStruct((), jnp.float32), count)
        return jax.tree.map(lambda u: -lr(count) * factor * u, updates), count + 1
    return optax.GradientTransformation(lambda params: jnp.int32(0), update)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "flags", "status", "messages"),
    [
        (
            "leave_a_child()",
            "ctypes.string_at(0)",
            ["--stall_seconds=280"],
            "crashed",
            ["exit code 7", "ended by SIGSEGV"],
        ),
        pytest.param(
            "hoard()",
            "time.sleep(1000)",
            ["--stall_seconds=20", "--memory_gib=2.5"],
            "timeout",
            ["--memory_gib=2.5", "No progress for 20 s", "batched LAPACK"],
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_plug_in_that_ends_its_process_costs_only_its_own_trials(
    script, tmp_path, first, second, flags, status, messages
):
    (tmp_path / "mine.py").write_text(PLUG_IN.format(first=first, second=second))
    done = script(
        "run",
        f"--opt=./mine.py,{CALM}",
        "--horizons=60",
        "--trials=2",
        "--seeds=1",
        "--checkpoint_seconds=0",
        *flags,
    )
    assert done.returncode == 1, done.stderr
    assert {row["opt"]: row["status"] for row in rows(script) if row["status"] != "reference"} == {
        "mine": status,
        "calm": "ok",
    }
    (path,) = {
        path.parent for path in (tmp_path / "runs").rglob("result.json") if "mine-" in str(path)
    }
    end = json.loads((path / "result.json").read_text())
    assert end["status"] == status
    for message in messages:
        assert message in done.stderr + end["detail"]
    if status == "crashed":
        assert "misbehave" in end["detail"]  # where it died, from its output
        assert not is_running(int((tmp_path / "tried").read_text()))
        beside = contents(tmp_path / "runs")
        (tmp_path / "runs").rename(tmp_path / "before")
        assert (
            script("run", f"--opt={CALM}", "--horizons=60", "--trials=2", "--seeds=1").returncode
            == 0
        )
        assert contents(tmp_path / "runs") == {
            name: content for name, content in beside.items() if "/calm-" in name
        }


# Its state is too large for the disk of the test below.
HEAVY = """
import jax.numpy as jnp, optax
from optimizers import Schedule, optimizer

@optimizer
def heavy(lr: Schedule = 0.1):
    ballast = optax.GradientTransformation(
        lambda params: jnp.ones(100_000), lambda updates, state, params=None: (updates, state)
    )
    return optax.chain(ballast, optax.scale_by_learning_rate(lr))
"""


@pytest.mark.long
def test_a_full_disk_loses_nothing(script, tmp_path):
    """A limit on the size of files stands in for the full disk: writes fail within a file."""
    (tmp_path / "heavy.py").write_text(HEAVY)
    flags = [
        f"--opt={tmp_path / 'heavy.py'}",
        "--horizons=100",
        "--trials=2",
        "--seeds=1",
        "--checkpoint_seconds=0",
    ]

    limited = f"ulimit -f 200; exec {shlex.join(script.command('run', *flags, '--cache='))}"
    full = subprocess.run(["sh", "-c", limited], capture_output=True, text=True, timeout=300)
    assert full.returncode == 1
    assert "could not be written" in full.stderr
    assert "Traceback" not in full.stderr
    assert script("run", *flags).returncode == 0
    assert [row["status"] for row in rows(script) if row["opt"] == "heavy"] == ["ok"]


@pytest.mark.long
def test_a_slow_download_is_not_blamed_on_an_optimizer(script, tiny_task, tmp_path, monkeypatch):
    """A named pipe stands in for a file that arrives slowly."""
    os.mkfifo(slow := tmp_path / "slow.npz")
    monkeypatch.setenv(tiny.TEACHER, str(slow))
    command = script.command(
        "run", f"--opt={CALM}", "--horizons=20", "--trials=1", "--seeds=1", "--stall_seconds=12"
    )
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    try:
        while "Opening" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(15)
        with subprocess.Popen(["timeout", "60", "cp", tiny_task.teacher_file, str(slow)]):
            said = process.communicate(timeout=240)[1]
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, "No progress" in said) == (0, False), said


@pytest.mark.long
def test_two_sweeps_do_not_share_a_folder(script, tmp_path):
    process = subprocess.Popen(
        script.command("run", f"--opt={CALM}", "--horizons=1000000", "--trials=1"),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        lock = tmp_path / "runs" / ".lock"
        deadline = time.monotonic() + 60
        while not (lock.exists() and lock.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        second = script("run", f"--opt={CALM}", "--horizons=20")
        assert second.returncode == 2
        assert f"in use by {lock.read_text().strip()}" in second.stderr
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_a_checkpoint_of_another_trial_is_refused_with_the_reason(script, tmp_path):
    flags = [
        f"--opt={CALM}",
        "--horizons=1000000",
        "--trials=1",
        "--seeds=1",
        "--checkpoint_seconds=0",
    ]
    process = subprocess.Popen(
        script.command("run", *flags), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (states := list((tmp_path / "runs").rglob("state.npz"))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(0.5)
    from distill_bench.training import lane_state

    owner = {"trial": "another"}
    lane_state.save(states[0], lane_state.Saved(1, ()), owner)
    process = subprocess.Popen(
        script.command("run", *flags), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    try:
        said = next(line for line in process.stderr if "Damaged" in line)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert "belongs to another fingerprint and source and trial and versions" in said

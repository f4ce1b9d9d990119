"""Sweeps that are killed at random moments, from the first import to the table.

Each test is one kill: a signal, sent to the supervisor, its worker or all processes. Then the
same command runs again to its end, and the store must be that of an undisturbed sweep, byte for
byte (see support.stores.files), with no process left. A kill costs two starts of a sweep. By hand:

    DISTILL_BENCH_KILLS=100 pytest -n0 tests/test_kills.py
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from support.paths import CALM
from support.processes import children, marked, wait_until
from support.stores import files

KILLS = int(os.environ.get("DISTILL_BENCH_KILLS", "2"))
MARK = "DISTILL_BENCH_KILL"
FLAGS = [f"--opt={CALM}", "--horizons=300,600", "--trials=3", "--seeds=1", "--checkpoint_seconds=0"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
TARGETS = ["supervisor", "worker", "all"]
LIMIT = 1800  # seconds, for whatever a busy machine may take


class Undisturbed:
    """What a sweep leaves that nobody kills, and how long it took when it was last measured."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | list[bytes]] = {}
        self.seconds = 0.0

    def measure(self, command, root) -> None:
        if self.files:
            return
        for name in ("cold", "warm"):
            began = time.monotonic()
            done = subprocess.run(
                [*command, f"--outdir={root / name}"], capture_output=True, text=True, timeout=LIMIT
            )
            assert done.returncode == 0, done.stderr
            self.seconds = time.monotonic() - began
        self.files = files(root / "warm")
        assert files(root / "cold") == self.files


@pytest.fixture(scope="module")
def undisturbed():
    return Undisturbed()


def send(number: signal.Signals, target: str, supervisor: int) -> None:
    """Sends the signal, to the supervisor if there is no worker yet or any more."""
    workers = children(supervisor)
    chosen = {
        "supervisor": [supervisor],
        "worker": workers[:1] or [supervisor],
        "all": [supervisor, *workers],
    }
    for process in chosen[target]:
        try:
            os.kill(process, number)
        except ProcessLookupError:  # the worker has ended meanwhile
            os.kill(supervisor, number)


def killed(command, number: signal.Signals, target: str, seconds: float) -> str | None:
    """Runs the command and sends the signal after `seconds`. Returns what it printed on standard
    error; None if it had ended before."""
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            process.communicate(timeout=seconds)
            return None
        except subprocess.TimeoutExpired:
            send(number, target, process.pid)
            return process.communicate(timeout=LIMIT)[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kill", [0, *(pytest.param(kill, marks=pytest.mark.long) for kill in range(1, KILLS))]
)
def test_a_killed_sweep_ends_as_an_undisturbed_one(
    script, tmp_path, monkeypatch, undisturbed, kill
):
    dice = random.Random(kill)
    number, target = dice.choice(SIGNALS), dice.choice(TARGETS)
    moment = dice.uniform(0.0, 1.0)
    # Mostly programs are compiled already; otherwise kills would rarely meet anything else.
    cache = [f"--cache={tmp_path / 'cache'}"] if dice.random() < 0.1 else []
    undisturbed.measure(script.command("run", *FLAGS), tmp_path)
    monkeypatch.setenv(MARK, str(tmp_path))
    command, store = script.command("run", *FLAGS, *cache), tmp_path / "runs"
    scale = undisturbed.seconds
    for _ in range(20):
        began = time.monotonic()
        said = killed(command, number, target, moment * scale)
        if said is not None:
            break
        scale = min(scale, time.monotonic() - began)  # the machine has become faster
        shutil.rmtree(store)
    else:
        pytest.fail("the sweep always ended before its kill")
    wait_until(lambda: not marked(MARK, str(tmp_path)), LIMIT, "a process is left")
    assert "defect" not in said, said
    again = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    what = f"{number.name} to the {target} at {moment:.2f}: {said}\n{again.stderr}"
    assert again.returncode == 0, what
    assert "Damaged" not in again.stderr, what
    assert files(store) == undisturbed.files, what
    assert marked(MARK, str(tmp_path)) == [], what

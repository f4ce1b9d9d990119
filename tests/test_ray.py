"""A real Ray cluster with two workers, one of which is killed while it trains."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.paths import BRISK, CALM
from support.stores import contents
from sweeps.execution.ray_executor import slices


def ray_workers():
    """Ids of the processes that run a unit of work."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::_unit"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_ray_gives_the_bits_of_the_local_executor_even_if_a_worker_is_killed(script, tmp_path):
    flags = [f"--opt={CALM},{BRISK}", "--horizons=600", "--trials=2", "--seeds=1"]
    assert script("run", *flags, f"--export={tmp_path / 'local-students'}").returncode == 0
    local = contents(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "local")
    students = tmp_path / "students"
    process = subprocess.Popen(
        script.command("run", *flags, "--executor=ray", f"--export={students}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (workers := ray_workers()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1)
        os.kill(workers[0], signal.SIGKILL)
        output, _ = process.communicate(timeout=240)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output
    assert contents(tmp_path / "runs") == local
    exported = {path.name: path.read_bytes() for path in students.glob("*.npz")}
    assert len(exported) == 2
    assert exported == {
        path.name: path.read_bytes() for path in (tmp_path / "local-students").glob("*.npz")
    }


def test_units_keep_all_workers_busy_and_each_holds_one_optimizer():
    opts = ["a"] * 5 + ["b"] * 3
    for workers in range(1, 12):
        units = slices(opts, workers)
        assert sorted(i for unit in units for i in unit) == list(range(8))
        assert all(len({opts[i] for i in unit}) == 1 for unit in units)
        assert len(units) >= min(workers, 2)

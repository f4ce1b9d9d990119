"""Two processes on this machine that share every batch."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from support.paths import CALM


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def losses(folder):
    """The training losses of each trial of a store, by the trial's folder."""
    found = {}
    for path in folder.rglob("records.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [loss for record in records for loss in record.get("losses", [])]
    return found


@pytest.mark.long
@pytest.mark.parametrize("streamed", [False, True])
def test_two_processes_give_the_losses_of_one(script, tmp_path, request, streamed):
    flags = [f"--opt={CALM}", "--lr=0.02", "--set=warmup=0.1", "--horizons=20", "--seeds=1"]
    if streamed:
        request.getfixturevalue("small_sun")  # sets the folder from which the scripts read it
        flags += ["--task=support.small_sun:from_environment"]
    assert script("run", *flags).returncode == 0
    (tmp_path / "runs").rename(tmp_path / "single")
    hosts = [
        "--multihost",
        f"--coordinator=127.0.0.1:{free_port()}",
        "--processes=2",
        "--devices=1",
        f"--export={tmp_path / 'students'}",
    ]
    commands = [
        script.command("run", *flags, *hosts, "--process=0"),
        script.command("run", *flags, *hosts, "--process=1"),
    ]
    commands[1] = [
        f"--outdir={tmp_path / 'follower'}" if part.startswith("--outdir") else part
        for part in commands[1]
    ]
    processes = [
        subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for command in commands
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "speed-up" in outputs[0]
    assert not (tmp_path / "follower").exists()
    single, both = losses(tmp_path / "single"), losses(tmp_path / "runs")
    assert single.keys() == both.keys()
    assert len(single) == 1
    for name, values in single.items():
        assert len(values) == 20
        np.testing.assert_allclose(both[name], values, atol=1e-6)
    (student,) = (tmp_path / "students").glob("*.npz")
    task = "support.small_sun:from_environment" if streamed else "tiny"
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "distill_bench.weights"),
            *(f"--check={student}", f"--task={task}"),
        ],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked

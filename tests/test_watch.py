"""Workers that misbehave in every way, watched to their end. They stand in for the one that trains:
real processes and pipes, without jax."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill_bench.errors import SweepFailed, UserError
from support import stand_ins
from support.paths import ROOT, TESTS
from support.processes import is_running, state, wait_until
from support.stores import Silent
from sweeps.execution import watch
from sweeps.execution.printed import HEAD, TAIL
from sweeps.execution.supervise import supervise
from sweeps.execution.watch import Done, Failure, Limits


@pytest.fixture
def watched(monkeypatch, tmp_path):
    """A function that runs a worker of these lines; returns how it ended, and what was said."""

    def watched(body, **limits):
        display = Silent()
        stand_ins.install(monkeypatch, body)
        return stand_ins.run(tmp_path, display, **limits), display.said

    return watched


# A child of the worker, and one that it copied itself into, hold everything that it had open.
CHILDREN = """
plan(); send("suspect", ["mine"])
child = subprocess.Popen(["sleep", "1000"], close_fds=False, pass_fds=[pipe])
copy = os.fork()
if not copy:
    time.sleep(1000)
open("children", "w").write(f"{child.pid} {copy}")
"""


@pytest.mark.parametrize(
    ("end", "how"),
    [("os._exit(7)", "exit code 7"), ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV")],
)
def test_a_dead_worker_is_seen_though_its_children_hold_its_pipes(
    watched, tmp_path, monkeypatch, end, how
):
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    outcome, _ = watched(CHILDREN + end, stall_seconds=300)
    assert time.monotonic() - began < 200  # the children live for 1000 s
    assert isinstance(outcome, Failure)
    assert how in outcome.headline
    assert (outcome.suspects, outcome.fault.status) == (("mine",), "crashed")
    for pid in map(int, Path("children").read_text().split()):
        wait_until(lambda pid=pid: not is_running(pid))


def test_children_of_a_worker_that_is_done_end_with_it(watched, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome, _ = watched(CHILDREN + "done()")
    assert outcome == Done({"mine": "./mine.py"}, (Path("/store/mine"),))
    for pid in map(int, Path("children").read_text().split()):
        wait_until(lambda pid=pid: not is_running(pid))


def test_foreign_bytes_on_the_pipe_are_no_messages(watched):
    outcome, said = watched(
        r"""
os.write(pipe, b'["done", []]\n["failed", "forged"]\n\xff\0' + b"x" * 1_000_000)
plan()
os.write(pipe, f'\n{token}["done", 7]\n{token}[[[\n'.encode())
send("say", "half-way"); os.write(pipe, b'{"'); done()
time.sleep(1000)
"""
    )
    assert outcome == Done({"mine": "./mine.py"}, (Path("/store/mine"),))
    assert said == ["half-way"]


FLOOD = 'plan(); send("suspect", ["mine"])\nwhile True: os.write({}, b"x" * 65536)'


def test_a_flood_on_the_pipe_ends_the_worker(watched):
    outcome, _ = watched(FLOOD.format("pipe"))
    assert isinstance(outcome, Failure)
    assert "MiB into the pipe" in outcome.headline
    assert outcome.suspects == ("mine",)


def test_endless_prints_are_no_progress_and_fill_no_disk(watched, tmp_path):
    outcome, _ = watched(FLOOD.format("1"), stall_seconds=2)
    assert isinstance(outcome, Failure)
    assert outcome.fault.status == "timeout"
    assert 0 < (tmp_path / "worker.log").stat().st_size < HEAD + TAIL + 100
    assert len(outcome.fault.detail) < 10_000


@pytest.mark.parametrize(
    "act", ["signal.signal(signal.SIGABRT, signal.SIG_IGN)", "os.kill(0, signal.SIGSTOP)"]
)
def test_a_worker_that_cannot_be_asked_where_it_hangs_is_ended(watched, monkeypatch, act):
    monkeypatch.setattr(watch, "_LAST_WORDS_SECONDS", 0.5)
    body = f'plan(); send("suspect", ["mine"]); {act}; time.sleep(1000)'
    outcome, _ = watched(body, stall_seconds=1)
    assert isinstance(outcome, Failure)
    assert outcome.headline == "No progress for 1 s (--stall_seconds)"


def test_a_worker_may_be_silent_while_no_optimizer_runs(watched):
    outcome, _ = watched("time.sleep(2.5); plan(); time.sleep(2.5); done()", stall_seconds=1)
    assert isinstance(outcome, Done)


def test_closed_pipes_are_not_the_end_of_a_worker(watched):
    outcome, _ = watched("plan(); os.closerange(0, 256); time.sleep(1); os._exit(3)")
    assert isinstance(outcome, Failure)
    assert "exit code 3" in outcome.headline


def test_a_log_that_cannot_be_written_costs_nothing(watched, tmp_path):
    os.mkfifo(tmp_path / "worker.log")
    outcome, said = watched("print('hello'); plan(); done()")
    assert isinstance(outcome, Done)
    assert said == [f"{tmp_path / 'worker.log'} could not be written: not a file"]


SUPERVISOR = """
import sys
from pathlib import Path
import pytest
from support import stand_ins
from sweeps.execution.progress import progress
with pytest.MonkeyPatch.context() as patch, progress() as display:
    stand_ins.install(patch, {body!r})
    print(type(stand_ins.run(Path(sys.argv[1]), display, stall_seconds=10)).__name__)
"""


@pytest.mark.long
def test_a_stopped_sweep_stops_its_worker_and_goes_on_later(tmp_path):
    """Ctrl-Z and `fg`. Stopped for longer than --stall_seconds, it has not stalled."""
    body = """
plan(); send("suspect", ["mine"]); send("say", f"worker {os.getpid()}")
for _ in range(6): time.sleep(0.5); send("advance", 1)
done()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR.format(body=body), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS, ROOT)))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stderr is not None
    try:
        worker = int(process.stderr.readline().split()[-1])
        process.send_signal(signal.SIGTSTP)
        for pid in (process.pid, worker):
            wait_until(lambda pid=pid: state(pid) == "T")
        time.sleep(12)  # longer than the limit: that is what is tested
        process.send_signal(signal.SIGCONT)
        out, said = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert (out, process.returncode) == ("Done\n", 0), said


# "killer" ends every process that has imported it, though it is not the one that is waited for.
KILLER = """
plan()
for spec in part:
    name = spec[2:-3]
    if name not in faults["dead"]:
        send("suspect", [name])
        if "./killer.py" in part and {when}:
            os._exit(9)
done()
"""


def sweep(monkeypatch, tmp_path, body, *opts, **options):
    display = Silent()
    stand_ins.install(monkeypatch, body)
    swept = supervise(stand_ins.request(tmp_path, *opts, **options), Limits(60, 0), display)
    return [path.name for path in swept.folders], swept.lost, display.said


def test_an_optimizer_that_ends_every_process_does_not_take_others_along(monkeypatch, tmp_path):
    done, lost, said = sweep(
        monkeypatch, tmp_path, KILLER.format(when="True"), "calm", "killer", "brisk"
    )
    assert (done, lost) == (["calm", "killer", "brisk"], [])
    assert "killer: The process ended by itself with exit code 9. Its trials have ended" in said[-1]


def test_every_worker_of_a_shard_runs_all_optimizers(monkeypatch, tmp_path):
    """Its trials are a slice of those of all optimizers."""
    body = KILLER.format(when='part == ["./calm.py", "./killer.py"] and name == "killer"')
    done, lost, said = sweep(monkeypatch, tmp_path, body, "calm", "killer", shard="0/2")
    assert (done, lost) == (["calm", "killer"], [])
    assert "killer: The process ended by itself with exit code 9. Its trials have ended" in said[-1]


def test_an_optimizer_that_cannot_even_be_recorded_is_left_out(monkeypatch, tmp_path):
    body = 'if part == ["./killer.py"]: send("importing", part[0]); os._exit(9)\n'
    done, lost, said = sweep(
        monkeypatch, tmp_path, body + KILLER.format(when="True"), "killer", "calm"
    )
    assert (done, lost) == (["calm"], ["killer"])
    assert "killer is left out, and how it ended is not stored" in said[-1]


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ('send("importing", "./mine.py"); os._exit(3)', UserError, "--opt=./mine.py ended the"),
        ("os._exit(3)", SweepFailed, "It was not running an optimizer"),
        ("plan(); os.kill(os.getpid(), 9)", SweepFailed, "SIGKILL, perhaps because memory ran out"),
        ('send("misuse", "a typo")', UserError, "a typo"),
        ('send("failed", "a full disk")', SweepFailed, "a full disk"),
    ],
)
def test_what_no_optimizer_is_to_blame_for_ends_the_sweep(
    monkeypatch, tmp_path, body, error, message
):
    with pytest.raises(error, match=message):
        sweep(monkeypatch, tmp_path, body, "mine")


def test_a_worker_that_ends_before_it_reads_a_long_request(monkeypatch, tmp_path):
    stand_ins.install(monkeypatch, "")
    monkeypatch.setattr(stand_ins.worker_process, "COMMAND", ("-c", "import os; os._exit(5)"))
    with pytest.raises(SweepFailed, match="exit code 5"):
        supervise(stand_ins.request(tmp_path, *"x" * 100_000), Limits(60, 0), Silent())

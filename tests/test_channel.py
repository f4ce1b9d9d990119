"""The worker's end of its pipe, in processes whose optimizers have done something to it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.paths import ROOT
from sweeps.execution.messages import Kind, Reader

SCRIPT = """
import os, subprocess, sys, threading
from sweeps.execution.channel import Channel
pipe = int(sys.argv[1])
channel = Channel(pipe, "token")
channel.say("before")
{}
channel.say("after")
"""


def texts(act, cwd):
    """What a process says that does `act` between two messages; its exit code and errors."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(act), str(write)],
        pass_fds=[write],
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    os.close(write)
    reader, said = Reader("token"), []
    with os.fdopen(read, "rb") as pipe:
        while content := pipe.read1():
            messages = list(reader.feed(content))
            assert {kind for kind, _ in messages} <= {Kind.SAY}
            said += [text for _, text in messages]
    error = process.communicate(timeout=60)[1]
    return said, process.returncode, error


@pytest.mark.parametrize(
    "act",
    [
        "os.close(pipe)",
        # Another file now has the pipe's number: what is written to it must not reach the file.
        "os.dup2(os.open('results', os.O_WRONLY), pipe)",
    ],
)
def test_a_process_that_has_lost_its_pipe_ends(act, tmp_path):
    (tmp_path / "results").touch()
    said, code, error = texts(act, tmp_path)
    assert (said, code) == (["before"], 70)
    assert error.startswith("This process cannot report any more: ")
    assert (tmp_path / "results").read_bytes() == b""


def test_a_copy_of_the_process_ends_when_it_reports(tmp_path):
    said, code, _ = texts(
        "child = os.fork()\nif child: assert os.waitpid(child, 0)[1] >> 8 == 70", tmp_path
    )
    assert (said, code) == (["before", "after"], 0)


def test_messages_of_several_threads_stay_whole_though_the_pipe_does_not_block(tmp_path):
    act = """
os.set_blocking(pipe, False)
def speak(number):
    for _ in range(30): channel.say(str(number) * 20_000)
threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    said, code, error = texts(act, tmp_path)
    assert code == 0, error
    assert sorted(said[1:-1]) == sorted(
        str(number) * 20_000 for number in range(4) for _ in range(30)
    )


def test_programs_that_an_optimizer_starts_do_not_get_the_pipe(tmp_path):
    act = """
look = [sys.executable, "-c", f"import os; os.fstat({pipe})"]
assert b"Bad file" in subprocess.run(look, close_fds=False, stderr=subprocess.PIPE).stderr
"""
    said, code, error = texts(act, tmp_path)
    assert (said, code) == (["before", "after"], 0), error

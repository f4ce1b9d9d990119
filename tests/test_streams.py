"""Commands whose streams are closed, full or in another encoding, and signals that end them."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys

import pytest

from support.paths import ROOT
from sweeps.execution.progress import bar_columns

SCRIPT = """
import os, signal, sys, time
from distill_bench.command import Flags, run
from distill_bench.log import LOG
{before}
def work():
    {work}
    return 0
sys.exit(run(work, Flags(), "", ["it"], after_interrupt="It starts again."))
"""


def command(work, before=""):
    return [sys.executable, "-c", SCRIPT.format(work=work, before=before)]


def environment(**changes):
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""} | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_what_an_encoding_lacks_is_replaced(changes):
    done = subprocess.run(
        # Escaped, because Python reads the command line in that encoding as well.
        command(r"print('1.5\xd7 \xb1 0.1 \u2013 \xe9\u2026'); LOG.info('a\udcff\u2026')"),
        capture_output=True,
        text=True,
        env=environment(**changes),
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "1.5x +- 0.1 - ?...\n",
        "a\\udcff...\n",
    )


def test_a_file_name_that_is_not_text_can_be_printed():
    done = subprocess.run(
        command("print('×\\udcff')"), capture_output=True, env=environment(PYTHONIOENCODING="utf-8")
    )
    assert (done.returncode, done.stdout.decode()) == (0, "×?\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_hindrance(tmp_path, closed):
    work = """
    file = open('results', 'w')
    print('a table')
    LOG.info('a message')
    os.write(2, b'a crash')
    assert sys.stdin.read() == ''
    file.write('a result')"""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command(work)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results").read_text() == "a result"
    assert "Traceback" not in done.stderr
    assert ("a table" in done.stdout) == (">&- " not in f" {closed} ".replace("2>&-", ""))


def test_output_that_nobody_can_read_gives_no_stack_trace():
    def run(work, **streams):
        process = subprocess.Popen(command(work), text=True, env=environment(), **streams)
        error = process.communicate(timeout=60)[1]
        return process.returncode, error

    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        for lines in (1, 10_000):  # fewer and more than are kept back until the end
            work = f"print('a line\\n' * {lines})"
            assert run(work, stdout=nobody, stderr=subprocess.PIPE) == (1, "")
        # A message that is lost does not end the work.
        assert run("LOG.info('half of it'); LOG.info('all of it')", stderr=nobody)[0] == 0
    with open("/dev/full", "w") as full:
        code, error = run("print('a table')", stdout=full, stderr=subprocess.PIPE)
    assert (code, error) == (
        1,
        "error: The output could not be written: No space left on device.\n",
    )


def interrupted(work, *signals, before=""):
    """Exit code and messages of a command that gets these signals once it is ready."""
    with subprocess.Popen(
        command(work, before),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        for one in signals:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(one)
        try:
            error = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    return process.returncode, error


READY, SLEEP = "print('ready', flush=True)", "time.sleep(1000)"
SAID = "\nInterrupted. It starts again.\n"


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_says_what_ctrl_c_says(one):
    assert interrupted(f"{READY}; {SLEEP}", one) == (128 + one, SAID)


@pytest.mark.parametrize(
    ("one", "two"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGHUP)]
)
def test_a_second_signal_ends_what_the_first_has_to_wait_for(one, two):
    work = f"""
    try:
        {READY}; {SLEEP}
    finally:
        {READY}; {SLEEP}"""
    assert interrupted(work, one, two) == (128 + two, SAID)


def test_nohup_is_respected():
    code, said = interrupted(
        f"{READY}; time.sleep(1); {READY}; {SLEEP}",
        signal.SIGHUP,
        signal.SIGTERM,
        before="signal.signal(signal.SIGHUP, signal.SIG_IGN)",
    )
    assert (code, said) == (143, SAID)


@pytest.mark.parametrize("width", [40, 60, 120])
def test_a_progress_bar_fits_the_terminal(width):
    from rich.console import Console
    from rich.progress import Progress

    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, no_color=True)
    with Progress(*bar_columns(width), console=console, auto_refresh=False) as bar:
        bar.add_task("tuning at 250 steps", total=12_000, completed=3_000)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).strip()
    assert " 3000/12000" in shown
    assert max(map(len, shown.split("\r"))) <= width


def test_a_display_outlives_its_terminal():
    """Its process ignores SIGHUP, as with nohup."""
    terminal, own = os.openpty()
    work = """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from sweeps.execution.progress import progress
    with progress() as display:
        display.begin("a phase", 10)
        display.say("ready")
        sys.stdin.read()
        for _ in range(5):
            display.advance(1)
            display.say("a message")
            time.sleep(0.2)  # the bar is drawn in the meantime
    print("done")"""
    with subprocess.Popen(
        command(work),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=own,
        env=environment(),
    ) as process:
        os.close(own)
        shown = b""
        while b"ready" not in shown:
            shown += os.read(terminal, 1000)
        os.close(terminal)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"done\n")

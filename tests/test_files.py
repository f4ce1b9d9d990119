"""Files written atomically, and file locks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distill_bench.files import (
    FileInUse,
    locked_file,
    remove_abandoned,
    replace_atomically,
    write_atomically,
)
from support.paths import ROOT

WRITER = """
import sys, pathlib
from distill_bench.files import replace_atomically

def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.readline()

replace_atomically(pathlib.Path(sys.argv[1]), write)
"""


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(file):
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_atomically(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_temporary_file_is_removed_once_its_writer_is_dead_and_not_before(tmp_path):
    path = tmp_path / "state.npz"
    others = [tmp_path / name for name in (".state.npz", ".state.npz.bak", ".result.json.1")]
    for other in others:
        other.write_text("someone else's")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        temporary = tmp_path / f".state.npz.{writer.pid}"
        remove_abandoned(tmp_path, {"state.npz", "other"})
        assert temporary.read_bytes() == b"half"
        write_atomically(path, "mine")  # beside it
        writer.communicate(b"go on\n", timeout=60)
        assert (writer.returncode, path.read_bytes()) == (0, b"half")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        writer.kill()
        writer.wait()
    temporary = tmp_path / f".state.npz.{writer.pid}"
    assert temporary.exists()
    write_atomically(path, "whole")
    assert (temporary.exists(), path.read_text()) == (False, "whole")
    assert all(other.exists() for other in others)


def test_an_exclusive_lock_names_its_owner_and_ends_with_the_block(tmp_path):
    path = tmp_path / ".lock"
    with locked_file(path) as file:
        file.write("process 1\n")
        file.flush()
        for shared in (False, True):
            with (
                pytest.raises(FileInUse, match="process 1"),
                locked_file(path, shared=shared, patience=0.0),
            ):
                pass
    with locked_file(path, patience=0.0) as file:
        file.seek(0)
        assert file.read() == "process 1\n"
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(FileInUse), locked_file(path, patience=0.0):
            pass


def test_shared_locks_exclude_only_exclusive_ones(tmp_path):
    path = tmp_path / ".lock"
    with (
        locked_file(path, shared=True),
        locked_file(path, shared=True, patience=0.0),
        pytest.raises(FileInUse, match="another process"),
        locked_file(path, patience=0.0),
    ):
        pass

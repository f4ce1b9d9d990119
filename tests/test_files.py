"""Files written atomically, and file locks."""

from __future__ import annotations

import pytest

from distill_bench.files import FileInUse, locked_file, replace_atomically


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


def test_shared_locks_exclude_only_exclusive_ones(tmp_path):
    path = tmp_path / ".lock"
    with (
        locked_file(path, shared=True),
        locked_file(path, shared=True, patience=0.0),
        pytest.raises(FileInUse, match="another process"),
        locked_file(path, patience=0.0),
    ):
        pass

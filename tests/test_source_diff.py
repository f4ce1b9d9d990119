"""What changed between the versions of one file that ran."""

from __future__ import annotations

import os

import pytest

from distill_bench.errors import UserError
from support.run_results import loaded, study
from sweeps.board import source_diff


def version(tmp_path, digit, text, when, name="mine", **changes):
    one = loaded(study(name, source=digit * 64, **changes), {125: 0.2}, tmp_path / digit)
    one.sources = {"mine.py": text}
    one.folder.mkdir(exist_ok=True)
    (one.folder / "study.json").write_text("")
    os.utime(one.folder / "study.json", (when, when))
    return one


def test_each_version_is_compared_with_the_one_before_it(tmp_path):
    third = version(tmp_path, "c", "x = 1\ny = 4\n", 3e9)
    first = version(tmp_path, "a", "x = 1\ny = 2\n", 1e9)
    second = version(tmp_path, "b", "x = 1\ny = \x1b3\n", 2e9)
    other = version(tmp_path, "d", "z = 1\n", 2e9, name="other")
    lines = source_diff.describe([third, other, first, second], "mine").splitlines()
    assert [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")] == [
        "-y = 2",
        "+y = \\x1b3",
        "-y = \\x1b3",
        "+y = 4",
    ]
    assert lines[0].startswith("--- mine@aaaaaa mine.py")
    assert lines[1].startswith("+++ mine@bbbbbb mine.py")


def test_without_two_versions_there_is_one_message(tmp_path):
    one = version(tmp_path, "a", "x = 1\n", 1e9)
    with pytest.raises(UserError, match="one version ran"):
        source_diff.describe([one], "mine")
    with pytest.raises(UserError, match="Did you mean 'mine'"):
        source_diff.describe([one], "mina")

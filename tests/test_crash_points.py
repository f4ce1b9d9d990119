"""A process may be killed before any of its file operations: nothing is lost, nothing is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from support.paths import ROOT, TESTS


@pytest.mark.slow
def test_a_trial_resumes_from_its_checkpoint_wherever_its_process_was_killed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "support.crash_points", str(tmp_path / "stores")],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS)))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) > 40
    for number, kill in enumerate(kills):
        assert (number, kill["said"], kill["same"]) == (number, [], True)
        if kill["resumed"] is not None:
            assert (number, kill["resumed"]) == (number, kill["checkpoint"] or 0)
    assert {kill["checkpoint"] for kill in kills} == {None, 40, 80}
    assert kills[-1]["resumed"] is None  # the last kills came after the result

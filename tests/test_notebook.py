"""The notebook in examples/, run from its first cell to its last."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from support.paths import ROOT

NAME = "compare.ipynb"


@pytest.mark.long
def test_the_notebook_runs(script, tmp_path):
    shutil.copy(ROOT / "examples" / NAME, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", NAME],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / NAME).read_text())["cells"]
    shown = [out["data"] for cell in cells for out in cell.get("outputs", []) if "data" in out]
    table, gain, frame, figure = shown
    assert "adamw (reference)" in "".join(table["text/plain"])
    assert "Speedup(value=" in "".join(gain["text/plain"])
    assert "belief" in "".join(frame["text/html"])
    assert len(figure["image/png"]) > 1000
    written = (tmp_path / "runs" / "from_python" / "belief.py").read_text()
    assert "@optimizer\ndef belief(" in written
    assert "compare" not in written


def test_the_committed_outputs_are_those_of_its_cells():
    """Every cell ran, in order, and none failed."""
    cells = json.loads((ROOT / "examples" / NAME).read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [out for cell in code for out in cell["outputs"] if out["output_type"] == "error"]

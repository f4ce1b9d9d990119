"""The documentation as a site."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import yaml

from support.paths import ROOT


@pytest.mark.process
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} | {"index", "contributing"}
    assert {path.stem for path in tmp_path.glob("*.html")} - {"404"} == pages
    for path in tmp_path.glob("*.html"):
        text = path.read_text()
        assert not re.search(r'<(script|img|link)[^>]*(src|href)="https?:', text), path
    # Names from the code, with their descriptions.
    api = (tmp_path / "api.html").read_text()
    assert "Tunes optimizers on a task and compares them" in api
    # README's links lead to pages, those to other files are only names.
    index = (tmp_path / "index.html").read_text()
    assert 'href="commands.html"' in index
    assert "examples/compare.ipynb" in index
    assert 'compare.ipynb"' not in index


def test_every_page_is_in_the_menu():
    menu = re.findall(r"[\w]+\.md", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert sorted(menu) == sorted(pages | {"index.md", "contributing.md"})
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text())["theme"]["font"] is False

"""Folders and files that the tests use."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
CALM, BRISK = (TESTS / "support" / "plug_ins" / f"{name}.py" for name in ("calm", "brisk"))

# A folder with a *.dist-info, as an installed package has it: its entry points offer the tests'
# tasks. On sys.path it makes `--task=tiny` work.
INSTALLED = TESTS / "support" / "installed"

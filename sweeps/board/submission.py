"""Whether a submitted entry may join the leaderboard, before anything of it is rerun."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from optimizers.contract import registry
from sweeps import cli
from sweeps.board import copies, identity, untrusted
from sweeps.board.draw import Request
from sweeps.board.entries import Entry
from sweeps.board.entry_code import is_carried, trusted_file

_LAST_LINES = 12


def request(seed: int | None) -> Request:
    """What is rerun: two seeds at each horizon and twelve tuning trials.

    On two CPU cores that takes minutes on digits and fashion.

    seed: of the draw; None for a fresh one.
    """
    return Request(seeds=2, tuning=12, seed=seed)


def objections(entry: Entry, board: Sequence[Entry]) -> list[str]:
    """Why the entry is refused; nothing is run, and none of its code is imported.

    Args:
      entry: as `entries.read` gave it, which has checked its form, ladder, trials and seeds.
      board: the other entries of its task.
    """
    found, study = [], entry.study
    if study.task not in catalogue.CATALOGUE:
        return [f"{study.task} is not a task of the leaderboard"]
    if study.fingerprint != catalogue.get(study.task).fingerprint():
        found.append(f"it ran on another version of {study.task} ({study.fingerprint})")
    if reason := identity.objection(study, entry.spec, entry.sources):
        found.append(reason)
    others = [other for other in board if other.study.optimizer != study.optimizer]
    found += [f"it {phrase}" for phrase in copies.found([entry, *others]).get(study.optimizer, [])]
    return found


def conformance(entry: Entry) -> list[str]:
    """The conformance checks that the entry's own code fails, run in a process of their own.

    Nothing for a built-in optimizer.
    """
    if not is_carried(entry):
        return []
    try:
        name = trusted_file(entry, trust=True)
    except UserError as error:
        return [str(error)]
    with tempfile.TemporaryDirectory() as folder:
        registry.write_own(entry.sources, Path(folder))
        spec = f"{Path(folder) / name}:{entry.study.optimizer}"
        done = subprocess.run(
            [sys.executable, "-P", "-m", "optimizers.conformance", spec],
            cwd=folder,
            env=cli.clean_environment(),
            capture_output=True,
            text=True,
            errors="replace",
        )
    failed = [line.split("FAIL", 1)[1] for line in done.stdout.splitlines() if "  FAIL  " in line]
    if not failed and done.returncode:
        failed = ["\n".join((done.stdout + done.stderr).splitlines()[-_LAST_LINES:])]
    return [f"it fails a conformance check: {untrusted.printable(x.strip())}" for x in failed]

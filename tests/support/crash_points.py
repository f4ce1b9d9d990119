"""Kills a process before each of its file operations while it stores a trial, and then resumes.

    python -m support.crash_points FOLDER

For n = 0, 1, ...: a process stores a trial in FOLDER/n and is killed (SIGKILL) before its n-th file
operation. Another process then does the same in the same folder, undisturbed. This goes on until a
process ends before it is killed. What it leaves is what no kill disturbed. Prints JSON lines
{"checkpoint": ..., "resumed": ..., "said": ..., "same": ...}: the step of the checkpoint that the
killed process left, the step from which the trial was resumed, what was told meanwhile, and whether
the store has the same files. The steps are null if there was no checkpoint, or nothing to resume.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optax

from distill_bench.training.lane_state import Saved
from optimizers import optimizer
from optimizers.contract.registry import Resolved
from support.stores import files
from sweeps.execution.trial_sink import TrialSink
from sweeps.planning.plan import Candidate
from sweeps.planning.search import Search
from sweeps.planning.study import Study
from sweeps.results import outdir, store, trial_files

STEPS, CHUNK = 120, 40  # records end up in lines of 100 losses
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


@optimizer
def still(rate: float = 0.1) -> optax.GradientTransformation:
    """Has no schedule, so that storing its trials computes nothing."""
    return optax.sgd(rate)


STUDY = Study("tiny", "f" * 16, "still", "s" * 64, {}, {}, {})
CANDIDATE = Candidate(
    "still", Resolved(still, Path(__file__), "s" * 64), STUDY, Search("still", (), (), 1, (STEPS,))
)
TRIAL = CANDIDATE.trial({"rate": 0.1}, STEPS, 1)
LOSSES = np.random.default_rng(0).normal(size=STEPS).astype(np.float32)


def store_trial(root: Path) -> tuple[int | None, list[str]]:
    """Stores the trial unless it has finished. Returns the step that it continues from, and what
    was told."""
    said: list[str] = []
    root.mkdir(exist_ok=True)
    with outdir.locked(root, said.append):
        folder = store.save_study(root, STUDY, "still", {"still.py": "source"}, said.append)
        if trial_files.load_trials(folder)[0]:
            return None, said
        curves = root / "curves"
        sink = TrialSink(
            root, CANDIDATE, TRIAL, curves, None, {"device": "cpu"}, said.append, resumes=True
        )
        start = sink.saved.step if sink.saved else 0
        for step in range(start, STEPS, CHUNK):
            sink.losses(step + 1, LOSSES[step : step + CHUNK])
            sink.point(step + CHUNK, {"probe_loss": 0.1 * step}, {"norm": 1.0})
            if step + CHUNK < STEPS:
                sink.save(Saved(step + CHUNK, (np.full(3, step),)))
        sink.finish("ok", STEPS, None)
    return start, said


def kill_before(number: int, root: Path) -> None:
    """Kills this process before its file operation of this number below `root`."""
    count = itertools.count()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        below = event in OPERATIONS and str(arguments[0]).startswith(str(root))
        if below and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns in a process of its own; None if that is killed."""
    read, write = os.pipe()
    if not (child := os.fork()):
        os.close(read)
        answer = json.dumps(work()).encode()
        os.write(write, answer)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    assert (status, bool(answer)) in ((0, True), (signal.SIGKILL, False)), status
    return json.loads(answer) if answer else None


def checkpoint_of(root: Path) -> int | None:
    for path in root.rglob("state.npz"):
        with np.load(path) as archive:
            return json.loads(archive["about"].tobytes())["step"]
    return None


def main(folder: Path) -> None:
    def disturbed(number: int, root: Path) -> Any:
        kill_before(number, root)
        return store_trial(root)

    folder.mkdir()
    roots, found = [], []
    for number in itertools.count():
        root = folder / str(number)
        roots.append(root)
        if in_child(lambda root=root, number=number: disturbed(number, root)):
            break
        checkpoint = checkpoint_of(root)
        resumed, said = in_child(lambda root=root: store_trial(root))
        found.append({"checkpoint": checkpoint, "resumed": resumed, "said": said})
    undisturbed = files(roots[-1])
    for root, one in zip(roots, found, strict=False):
        print(json.dumps(one | {"same": files(root) == undisturbed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

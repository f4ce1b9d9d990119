"""Reruns with the code that an entry carries, in a process of their own.

    python -m sweeps.board.carried  (a request as JSON on standard input)

Such code may change anything in its process: what is trained, and what is measured. So the process
that judges never imports it. It takes the trained students, measures them itself, and believes no
loss at a run's end that it did not measure.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from distill_bench.errors import UserError
from distill_bench.networks import bit
from distill_bench.tasks import catalogue
from distill_bench.training.engine import Engine
from distill_bench.training.events import Compiled, Event, Losses
from distill_bench.weights import files
from optimizers.contract import registry
from sweeps import cli
from sweeps.board.entries import Entry
from sweeps.planning.study import TUNING_SEED, Result, Trial

_ROOT = Path(__file__).resolve().parents[2]
_RESULTS, _PROGRESS = "results.json", "progress.jsonl"
_MAX_BYTES = 64 << 20
_LAST_LINES = 12


def rerun(
    engine: Engine,
    entry: Entry,
    name: str,
    trials: Sequence[Trial],
    folder: Path,
    watch: Callable[[Event, int], None],
) -> tuple[list[Result], list[str]]:
    """The results of the trials, and what is wrong with them, one sentence each.

    Args:
      engine: the task, in this process.
      entry: carries the code.
      name: the carried file that declares the optimizer.
      trials: what to train.
      folder: an empty folder for what the other process writes.
      watch: called with each event of training, as far as it shows progress, and the number of all
        steps.

    Raises:
      UserError: if the process ends without results; shows its last words.
    """
    request = {
        "task": engine.source.task.name,
        "sources": dict(entry.sources),
        "name": name,
        "optimizer": entry.study.optimizer,
        "folder": str(folder),
        "trials": [asdict(trial) for trial in trials],
    }
    with open(folder / "log", "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "sweeps.board.carried"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            assert child.stdin
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
            _follow(child, folder / _PROGRESS, sum(trial.horizon for trial in trials), watch)
        finally:
            child.kill()
            child.wait()
    try:
        results = _read(folder / _RESULTS, trials)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        words = (folder / "log").read_text(errors="replace").splitlines()[-_LAST_LINES:]
        raise UserError(
            f"The code that the entry carries did not end its runs ({type(error).__name__}). "
            "Its process said last:\n\n" + "\n".join(words)
        ) from None
    return results, [*_unlike(engine, results, folder)]


def _follow(
    child: subprocess.Popen[bytes],
    progress: Path,
    steps: int,
    watch: Callable[[Event, int], None],
) -> None:
    """Reports progress until the process ends."""
    watch(Compiled(0, 0.0, {}), steps)
    seen = 0
    while child.poll() is None:
        time.sleep(0.2)
        done = progress.stat().st_size if progress.exists() else 0  # a byte for each step
        if seen < done <= steps:
            watch(Losses(0, seen + 1, np.zeros(done - seen, np.float32)), steps)
            seen = done


def _read(path: Path, trials: Sequence[Trial]) -> list[Result]:
    """The results that the other process wrote: numbers and statuses, whose types are checked."""
    if path.is_symlink() or path.stat().st_size > _MAX_BYTES:
        raise ValueError("the results are too large")
    found = json.loads(path.read_text())
    if len(found) != len(trials):
        raise ValueError("results are missing")
    return [_result(trial, one) for trial, one in zip(trials, found, strict=True)]


def _result(trial: Trial, found: Mapping[str, Any]) -> Result:
    if found["status"] not in ("ok", "diverged", "crashed", "timeout"):
        raise ValueError(f"unknown status {found['status']!r}")
    points = tuple(
        (int(step), {str(name): float(value) for name, value in metrics.items()})
        for step, metrics in found["points"]
    )
    if found["status"] == "ok" and not points:
        raise ValueError("a run ended well without metrics")
    losses = tuple(map(float, found["losses"]))
    return Result(trial, found["status"], int(found["step"]), None, losses, points)


def _unlike(engine: Engine, results: Sequence[Result], folder: Path) -> list[str]:
    """Runs whose students are not as good as their process said, by measuring them here."""
    network, wrong = engine.source.task.student, []
    assert isinstance(network, bit.BiTConfig)  # as of every task that has a leaderboard
    for i, result in enumerate(results):
        if result.final is None:
            continue
        name = f"horizon {result.trial.horizon}, seed {result.trial.seed}"
        path = folder / f"{i}.npz"
        if path.is_symlink():
            wrong.append(f"{name}: its process left no student")
            continue
        try:
            params = files.read(path, network)[0]
        except UserError as error:
            wrong.append(f"{name}: its student cannot be read: {error}")
            continue
        exam = "probe" if result.trial.seed == TUNING_SEED else "all"
        measured = engine.measure(params, exam)
        if differing := [m for m, value in measured.items() if value != result.final.get(m)]:
            was, here = result.final.get(differing[0]), measured[differing[0]]
            wrong.append(
                f"{name}: its process gave {differing[0]} {was}, but its student has {here}"
            )
    return wrong


def main() -> None:
    """Trains what the request asks for; writes results, and the students' parameters."""
    request = json.loads(sys.stdin.read())
    cli.set_up_jax(None)
    from sweeps.board.train_again import train_again
    from sweeps.execution.resources import Resources

    folder = Path(request["folder"])
    code = folder / "code"
    code.mkdir()
    carried = (request["sources"], request["name"], request["optimizer"], code)
    opt = registry.resolve_carried(*carried).optimizer
    engine = Resources().open_engine(catalogue.get(request["task"]))

    def watch(event: Event, steps: int) -> None:
        if isinstance(event, Losses):
            with open(folder / _PROGRESS, "ab") as file:
                file.write(b"." * len(event.values))

    def keep(index: int, params: Any) -> None:
        (folder / f"{index}.npz").write_bytes(files.dumps(params))

    trials = [Trial(**trial) for trial in request["trials"]]
    results = train_again(engine, opt, trials, watch, keep)
    content = [
        {"status": r.status, "step": r.step, "losses": r.losses, "points": r.points}
        for r in results
    ]
    (folder / _RESULTS).write_text(json.dumps(content))


if __name__ == "__main__":
    main()

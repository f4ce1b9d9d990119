"""Made-up studies with results, as a store loads them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from sweeps.planning.study import Result, Study, Trial
from sweeps.results.store import Loaded

NOWHERE = Path("no such folder")
HPARAMS = {"lr": 0.0837214, "b2": 0.95, "weight_decay": 0.001, "warmup": 0.1, "block_size": 128}
SPACE = {"lr": {"kind": "Log", "low": 0.01, "high": 1.0}}


def study(name="mine", *, source="a" * 64, task="dots", fixed=None, **changes):
    made = Study(task, "f" * 16, name, source, SPACE, fixed or {}, {"jax": "1"})
    return dataclasses.replace(made, **changes)


def run(of, horizon, seed, loss, status="ok", detail=None, hparams=HPARAMS):
    final = {
        "curve_loss": loss,
        "probe_loss": loss,
        "heldout_kl": loss + 0.01,
        "test_kl": 2 * loss,
        "agreement": 0.9,
        "accuracy": 0.8,
    }
    points = ((horizon, final),) if status == "ok" else ()
    return Result(Trial(of.id, hparams, horizon, seed), status, horizon, detail, (), points)


def loaded(of, losses, folder=NOWHERE, seeds=(1, 2, 3)):
    """A study with finals of these mean losses by horizon; which seed is lucky depends on the
    name."""
    results = [
        run(of, horizon, seed, loss * (1 + 0.01 * ((seed + len(of.optimizer)) % 3 - 1)))
        for horizon, loss in losses.items()
        for seed in (0, *seeds)
    ]
    return Loaded(of, folder, "./mine.py", {}, results)


def failed(of, horizon, detail, status="diverged"):
    results = [run(of, horizon, 0, 0.5)]
    results += [run(of, horizon, seed, 0, status, detail) for seed in (1, 2, 3)]
    return Loaded(of, NOWHERE, "./mine.py", {}, results)

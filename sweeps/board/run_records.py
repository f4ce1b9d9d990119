"""Runs as entries hold them, and what of a rerun differs from the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_bench.training.exams import CURVE
from sweeps.board.entries import METRICS, Entry
from sweeps.planning.study import TUNING_SEED, Result

Curve = Mapping[str, Sequence[Any]]
CURVES = "curves"
"""What a difference along a run, before its end, is called."""
SAME = 1e-8  # relative; entries keep nine digits, which identify a float32


def tuning_record(result: Result) -> dict[str, Any]:
    """A tuning trial as an entry holds it."""
    return {
        "hparams": result.trial.hparams,
        "status": result.status,
        "step": result.step,
        "final": result.final and rounded(_recorded(result.final)),
    }


def final_record(result: Result, curve: Curve | None = None) -> dict[str, Any]:
    """A final run as an entry holds it.

    curve: its mean losses, if the result does not hold all losses.
    """
    return {
        "seed": result.trial.seed,
        "status": result.status,
        "step": result.step,
        "points": [
            {"step": step, **rounded(_recorded(metrics))} for step, metrics in result.points
        ],
        "curve": rounded(curve or mean_losses(result.losses)),
    }


def _recorded(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that entries hold; a store has more."""
    return {name: metrics[name] for name in (CURVE, *METRICS) if name in metrics}


def mean_losses(losses: Sequence[float], points: int = 40) -> dict[str, list[Any]]:
    """Training losses averaged over at most `points` intervals that grow with the step."""
    edges = (
        np.unique(np.round(np.geomspace(1, max(len(losses), 1), points)).astype(int))
        if losses
        else np.empty(0, int)
    )
    values = np.asarray(losses, float)
    means = [float(values[low:high].mean()) for low, high in zip([0, *edges], edges, strict=False)]
    return {"step": edges.tolist(), "loss": [mean if np.isfinite(mean) else None for mean in means]}


def rounded(value: Any) -> Any:
    """The same data with floats cut to nine significant digits, which identify a float32."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value


def differences(entry: Entry, recorded: Result, again: Result) -> tuple[str, ...]:
    """Columns of a recorded run that its rerun does not have to the last digit, sorted.

    Those are "status", names of metrics at the end, and "curves" for all numbers before it. The
    status of a run that crashed or timed out is the machine's, so it does not count.
    """
    if recorded.status in ("crashed", "timeout"):
        return ()
    if recorded.status != again.status:
        return ("status",)
    old, new = recorded.final or {}, rounded(_recorded(again.final or {}))
    found = {name for name in old.keys() | new.keys() if not _same(old.get(name), new.get(name))}
    if recorded.trial.seed != TUNING_SEED:
        steps, losses = entry.curves[recorded.trial.horizon, recorded.trial.seed]
        before = final_record(recorded, {"step": list(steps), "loss": list(losses)})
        after = final_record(again)
        ends = (before["points"].pop(), after["points"].pop()) if old and new else ({}, {})
        same = _same(before, after) and ends[0].get("step") == ends[1].get("step")
        found |= set() if same else {CURVES}
    elif recorded.step != again.step:
        found.add(CURVES)
    return tuple(sorted(found))


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, Mapping):
        return old.keys() == new.keys() and all(_same(old[name], new[name]) for name in old)
    if isinstance(old, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, float) and isinstance(new, float):
        return abs(new - old) <= SAME * abs(old)
    return old == new

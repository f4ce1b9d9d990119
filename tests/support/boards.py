"""Synthetic boards with known speed-ups, for the web page; pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

BASELINE = "anchor"
_NAMES = (
    "brisk",
    "calm",
    "drift",
    "ember",
    "fathom",
    "gale",
    "harbour",
    "inlet",
    "juniper",
    "kestrel",
    "lantern",
)
_HORIZONS = (250, 500, 1000, 2000, 4000)


def board(
    entries: int = 12, seed: int = 0, task: str = "dots", horizons: tuple[int, ...] = _HORIZONS
) -> dict[str, Any]:
    """A board of one task, as plain JSON data.

    It has the baseline and `entries` - 1 optimizers with true speed-ups between 0.6 and 2.6.
    """
    rng = np.random.default_rng(seed)
    names = [BASELINE, *_NAMES, *(f"rule_{i}" for i in range(len(_NAMES) + 1, entries))][:entries]
    gains = dict(
        zip(
            names,
            [1.0, *np.exp(rng.uniform(math.log(0.6), math.log(2.6), max(entries - 1, 0)))],
            strict=False,
        )
    )
    order = sorted(names, key=lambda name: -gains[name])
    longer = (*horizons, 2 * horizons[-1], 4 * horizons[-1])  # the baseline's
    made = [
        _entry(
            name,
            task,
            gains[name],
            1 + order.index(name) // 2,
            longer if name == BASELINE else horizons,
            longer,
            rng,
        )
        for name in names
    ]
    behind = {name: max(gains.values()) / gains[name] for name in names}
    ratios = {
        name: {
            "ratios": [
                _round(behind[name] * rng.uniform(1, 1.1)) if behind[name] < 3 else None
                for _ in horizons
            ]
        }
        for name in names
    }
    return {
        "made": {"distill-bench": "0.1.0", "date": "2026-11-21"},
        "baseline": BASELINE,
        "tasks": [
            {
                "name": task,
                "fingerprint": "c44391bffbdda121",
                "ladder": list(horizons),
                "rungs": list(horizons),
                "law": {"floor": 0.0, "scale": _round(_final(1000)), "exponent": 0.55},
                "certificate": _certificate(entries),
                "disagreements": [
                    {
                        "horizon": h,
                        "metric": "heldout_kl",
                        "lower_loss": order[i],
                        "better_metric": order[i + 1],
                    }
                    for i, h in enumerate(horizons[: max(0, len(order) - 1)])
                ],
                "profile": ratios,
            }
        ]
        if entries
        else [],
        "entries": made,
        "across": _across(order, gains, task) if entries > 1 else None,
        "published": [
            {
                "task": task,
                "name": "Large models",
                "cite": "Somebody 2025",
                "source": "table 3",
                "measure": "final loss",
                "settings": [
                    {"setting": size, "optimizers": order, "tau": 0.6, "separated": 5, "kept": 4}
                    for size in ("1B", "10B")
                ],
                "sentences": ["Large models (Somebody 2025): all of them."],
                "contradictions": ["Somebody 2025: the second is better than the first."],
            }
        ]
        if entries
        else [],
        "warnings": [
            "leaderboard/dots/old.json is not counted: it ran on another version of the task."
        ]
        if entries
        else [],
    }


def _across(order: list[str], gains: dict[str, float], task: str) -> dict[str, Any]:
    """Every second optimizer is also on another task's board."""
    shared = order[::2]

    def place(i: int, gain: float) -> dict[str, Any]:
        bounds = {"low": _round(gain / 1.1), "high": _round(gain * 1.1)}
        return {"rank": i + 1, "speedup": {"value": _round(gain), "bound": "="} | bounds}

    return {
        "tasks": [task, "elsewhere", "third"],
        "rows": [
            {
                "optimizer": name,
                "places": [place(i, gains[name]), place(i, gains[name] ** 0.8), None],
            }
            for i, name in enumerate(shared)
        ],
        "sentences": [f"Order on {task} and on elsewhere: Kendall's tau 1.00."],
        "contradictions": [],
    }


def _certificate(entries: int) -> dict[str, Any]:
    rows = (
        ("test_kl", "test", 0.61, 0.70, 0.68, 0.74),
        ("heldout_kl", "replicate", 0.83, 0.82, 0.81, 0.81),
        ("agreement", "reported", 0.21, 0.3, 0.13, 0.2),
        ("accuracy", "reported", 0.12, 0.2, -0.01, None),
    )
    return {
        "lacking": "",
        "runs": 25 * entries,
        "optimizers": entries,
        "pairs": 300 * entries,
        "entries": 5 * entries,
        "entry_pairs": 30 * entries,
        "reliability": 0.81,
        "metrics": [
            dict(metric=metric, role=role, tau=tau, low=tau - 0.2, high=min(1.0, tau + 0.15))
            | dict(alike=(1 + tau) / 2, between_halves=halves, reliability=own, ceiling=most)
            for metric, role, tau, halves, own, most in rows
        ],
        "sentences": ["A lower probe loss meant a lower KL on clean test images."],
    }


def _entry(
    name: str,
    task: str,
    gain: float,
    rank: int,
    horizons: tuple[int, ...],
    curve: tuple[int, ...],
    rng: np.random.Generator,
) -> dict[str, Any]:
    rungs = [_rung(gain, rank, horizon, horizons[0], curve, rng) for horizon in horizons]
    bound = ">" if gain > 2.2 else "="
    update, trend = _round(0.4 * gain**3), _round(float(rng.normal(0, 0.02)))
    edged = [rung["horizon"] for rung in rungs if rung["edges"]]
    return {
        "task": task,
        "optimizer": name,
        "spec": f"examples/{name}.py:{name}",
        "source_sha256": rng.bytes(32).hex(),
        "space": {
            "lr": {"kind": "Log", "low": 0.01, "high": 0.3},
            "b2": {"kind": "Choice", "values": [0.95, 0.99]},
        },
        "fixed": {"weight_decay": 0.001},
        "environment": {"jax": "0.10.2", "python": "3.11.7", "device": "cpu", "cores": 2},
        "cost": {
            "step_ms": 4.0 + update,
            "baseline_step_ms": 4.4,
            "teacher_ms": 8.0,
            "relative": (12.0 + update) / 12.4,
        }
        | {"state_bytes_per_parameter": float(rng.choice([0, 4, 8, 12, 25]))},
        "verification": [
            {"verdict": "reproduced", "detail": "all finals to the bit", "date": "2026-11-20"},
            {"verdict": "failed", "detail": "seed 3"},
            None,
        ][int(rng.choice(3, p=[0.6, 0.1, 0.3]))],
        "tune_check": {
            "largest": {"value": 0.003, "low": 0.0, "high": 0.012},
            "horizons": list(horizons),
            "seeds": 5,
            "sentence": "one hyperparameter changed at a time gains at most 0.3 % [0.0, 1.2]",
        }
        if name in (BASELINE, _NAMES[0])
        else None,
        "warnings": [
            f"at {h}: the best lr is at the edge of its range; a wider one may hold a better value."
            for h in edged
        ],
        "reproduce": [
            f"python sweeps/verify.py leaderboard/{task}/{name}.json",
            f"python sweeps/run.py --opt=examples/{name}.py:{name} "
            f"--horizons={','.join(map(str, horizons))} --trials=16 --seeds=5",
        ],
        "overall": {"value": _round(gain), "bound": bound, "rungs": list(horizons), "rank": rank}
        | {
            "trend": None
            if name == BASELINE
            else {"value": trend, "low": trend - 0.03, "high": trend + 0.03},
            "wall_clock": {
                "task": _round(gain * 4.4 / (4 + update)),
                "paper": _round(gain * 40.4 / (40 + update)),
            },
        }
        | (
            {"low": _round(gain / 1.06), "high": _round(gain * 1.06)}
            if bound == "=" and name != BASELINE
            else {}
        ),
        "rungs": rungs,
    }


def _rung(
    gain: float,
    rank: int,
    horizon: int,
    shortest: int,
    curve: tuple[int, ...],  # the baseline's horizons
    rng: np.random.Generator,
) -> dict[str, Any]:
    seeds, trials = 5, max(3, 16 * shortest // horizon)
    loss = _final(horizon * gain)
    steps = [s for s in range(10, horizon + 1) if s in (10, 20, 40) or s % (horizon // 20) == 0]
    progress = np.array(steps) / horizon
    shape_T = (
        (loss + 8 * loss * np.exp(-9 * progress))
        * (1 + 0.8 * (1 - progress) ** 0.7)
        * (1 + 0.03 * np.sin(40 * progress) * (1 - progress))
    )
    probe_ST = shape_T * np.exp(
        rng.normal(0, 0.02, (seeds, 1)) + rng.normal(0, 0.01, (seeds, len(steps)))
    )
    heldout_ST = probe_ST * (0.99 + rng.normal(0, 0.008, (seeds, len(steps))))
    rates = np.exp(
        math.log(0.01) + (np.arange(trials) + rng.uniform(0.1, 0.9)) / trials * math.log(30)
    )
    best = 0.011 + 0.06 * rng.random()
    tuned = [loss * (1 + 0.35 * math.log(lr / best) ** 2 + 0.03 * rng.random()) for lr in rates]
    lost = [bool(lr > 0.2 and gain > 1.4) for lr in rates]
    good = sorted(x for x, out in zip(tuned, lost, strict=True) if not out)
    ends_low = min(tuned) == tuned[0]
    value = min(gain, curve[-1] / horizon)
    bound = ">" if horizon * gain > curve[-1] else "<" if horizon * gain < curve[0] else "="
    value = curve[0] / horizon if bound == "<" else value
    return {
        "horizon": horizon,
        "mean": {
            "probe_loss": _round(loss),
            "heldout_kl": _round(loss * 0.99),
            "agreement": _round(1 - loss / 9),
            "accuracy": _round(0.99 - loss / 12),
        },
        "std": {
            "probe_loss": _round(0.02 * loss),
            "heldout_kl": _round(0.03 * loss),
            "agreement": 0.002,
            "accuracy": 0.003,
        },
        "seeds": seeds,
        "trials": trials,
        "diverged": sum(lost),
        "crashed": 0,
        "hparams": {
            "lr": float(rates[int(np.argmin(tuned))]),
            "b2": float(rng.choice([0.95, 0.99])),
        },
        "edges": ["lr"] if ends_low else [],
        "speedup": {"value": _round(value), "bound": bound}
        | (
            {"low": _round(value / 1.1), "high": _round(value * 1.1)}
            if bound == "=" and gain != 1
            else {}
        ),
        "rank": rank,
        "curve": {
            "steps": steps[3::5],
            "probe_loss": probe_ST[:, 3::5].tolist(),
            "heldout_kl": heldout_ST[:, 3::5].tolist(),
            "train_steps": steps,
            "train_loss": (probe_ST * 1.01).tolist(),
        },
        "tried": [
            {
                "hparams": {"lr": float(lr), "b2": 0.95},
                "status": "diverged" if out else "ok",
                "probe_loss": None if out else _round(x),
            }
            for lr, x, out in zip(rates, tuned, lost, strict=True)
        ],
        "best_after": [
            _round(good[0] + (float(np.mean(good)) - good[0]) / k)
            for k in range(1, 1 + (trials // 2 if horizon == shortest else 0))
        ],
        "sensitivity": {
            "within": _round(float(rng.uniform(0.1, 0.9))),
            "typical": _round(float(rng.uniform(1, 2))),
        }
        if horizon == shortest
        else None,
    }


def _final(horizon: float) -> float:
    """The baseline's final loss at a horizon."""
    return 2.6 * horizon**-0.55


def _round(x: float) -> float:
    return float(f"{x:.6g}")


def mutated(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """A small board after `change` has edited it in place."""
    change(made := board(4, horizons=(250, 500)))
    return made

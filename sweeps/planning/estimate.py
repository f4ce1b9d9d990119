"""Estimates how long a plan takes on this machine."""

from __future__ import annotations

import time
from typing import Any

from distill_bench.networks import network
from distill_bench.training.train import exams
from sweeps.planning.plan import Plan

# Fractions of the matmul peak that teacher and student reach, and the seconds that opening a task
# takes. Measured on two CPU cores.
TEACHER_FRACTION, STUDENT_FRACTION, START_SECONDS = 0.65, 0.3, 25.0


def _peak_flops() -> float:
    """Speed of a matrix product on one device, times the number of devices."""
    import jax
    import jax.numpy as jnp

    n = 1024
    matrix = jnp.ones((n, n))
    multiply = jax.jit(lambda a: a @ a)
    multiply(matrix).block_until_ready()
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        multiply(matrix).block_until_ready()
        best = min(best, time.perf_counter() - began)
    # On CPU one product already uses every core.
    devices = 1 if jax.default_backend() == "cpu" else jax.local_device_count()
    return 2 * n**3 / best * devices


def seconds(plan: Plan) -> float:
    """Estimated time for the whole plan on this machine, if none of it has run yet."""
    task = plan.task
    teacher = 2 * task.teacher_macs * task.batch_size / TEACHER_FRACTION
    student = 2 * network.macs(task.student, task.views.size) * task.batch_size / STUDENT_FRACTION
    eval_batches = 2 * task.probe.batches * task.probe.batch_size / task.batch_size

    def lane(horizon: int) -> float:
        return student * (3 * horizon + eval_batches * len(exams(horizon, True)))

    tuning = teacher * max(plan.horizons) + sum(lane(trial.horizon) for _, trial in plan.tuning)
    finals = plan.seeds * (
        teacher * max(plan.horizons) + len(plan.candidates) * sum(lane(h) for h in plan.horizons)
    )
    return START_SECONDS + (tuning + finals) / _peak_flops()


def _domain(domain: dict[str, Any]) -> str:
    values = domain.get("values") or [domain["low"], domain["high"]]
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return f"{domain['kind']}({', '.join(texts)})"


def describe(plan: Plan) -> str:
    """The plan in words, with its estimated time."""
    lines = [f"task {plan.task.name}, fingerprint {plan.task.fingerprint()}"]
    for candidate in plan.candidates:
        searched = (
            ", ".join(
                f"{name} in {_domain(domain)}" for name, domain in candidate.study.space.items()
            )
            or "nothing to search"
        )
        fixed = "".join(f", {name} = {value}" for name, value in candidate.study.fixed.items())
        lines.append(
            f"{candidate.optimizer.name}: {len(candidate.trials)} trials, {searched}{fixed}"
        )
    rungs = ", ".join(map(str, plan.horizons))
    finals = len(plan.candidates) * len(plan.horizons) * plan.seeds
    lines.append(
        f"horizons {rungs}: {len(plan.tuning)} tuning runs, "
        f"then {finals} final runs on {plan.seeds} fresh seeds"
    )
    lines.append(f"about {seconds(plan):.0f} s on this machine")
    return "\n".join(lines)

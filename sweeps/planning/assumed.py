"""Costs of a task that has not run on this machine, from its arithmetic and the machine's speed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from distill_bench.data.dataset import TfdsDataset
from distill_bench.machine import core_count
from distill_bench.tasks.task import Task
from distill_bench.training.lane_layout import LaneLayout
from distill_bench.views.step_views import view_specs
from sweeps.planning.costs import Costs, RuleCost, Seconds
from sweeps.planning.stopwatch import STUDENT_FRACTION, TEACHER_FRACTION, flops
from sweeps.planning.workload import STEP, STREAM, VIEW, views_of_point

# Of a paper task with nothing compiled: to open it, besides the evaluation set's logits, and to
# compile an update rule.
OPENING_SECONDS, COMPILATION_SECONDS = 75.0, 30.0


def assume(task: Task, layouts: Sequence[LaneLayout]) -> tuple[Costs, RuleCost, list[str]]:
    """The costs, those of any update rule, and what was assumed, in words."""
    layout, peak = layouts[0], _matmul_peak(task, layouts)
    work = {unit: count / peak for unit, count in flops(task).items()}
    notes = [
        f"assuming {TEACHER_FRACTION:.0%} of its matrix-product peak ({peak / 1e12:.2g} TFLOP/s) "
        f"for teachers and {STUDENT_FRACTION:.0%} for students"
    ]
    stream = work[STREAM]
    if _is_streamed(task):
        rate = core_count() / _seconds_per_image(task)
        notes.append(f"{rate:.0f} images per second read from disk, once the data is prepared")
        reading = task.batch_size / rate
        # A CPU's cores do both; an accelerator computes while the host reads.
        stream = stream + reading if jax.default_backend() == "cpu" else max(stream, reading)
    teaching = work[STREAM] / task.batch_size * views_of_point(task, True, True)
    opening, compilation = OPENING_SECONDS + teaching, COMPILATION_SECONDS
    rule = RuleCost(work[STEP] * layout.lanes, Seconds(compilation, compilation))
    costs = Costs(stream, work[VIEW] * layout.lanes, Seconds(opening, opening))
    return costs, rule, notes


def _matmul_peak(task: Task, layouts: Sequence[LaneLayout]) -> float:
    """FLOP/s of a matrix product, over all devices."""
    on_cpu = jax.default_backend() == "cpu"
    n, precision = (1024, "float32") if on_cpu else (8192, task.precision)
    matrix = jnp.ones((n, n), precision)
    multiply = jax.jit(lambda a: a @ a)
    multiply(matrix).block_until_ready()
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        multiply(matrix).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best * sum(layout.mesh.devices.size for layout in layouts)


def _is_streamed(task: Task) -> bool:
    images = task.images or task.dataset
    return isinstance(images, TfdsDataset) and images.side is None and not images.in_memory


def _seconds_per_image(task: Task) -> float:
    """Of one core, to read, decode and crop an image: fitted to docs/benchmarks.md."""
    pixels = sum(spec.size**2 for spec in view_specs(task)[0])
    return 1.6e-3 + 1.0e-3 * pixels / 224**2

"""What each flag of sweeps/benchmark.py measures: figures by name."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from typing import Any

from distill_bench.errors import UserError, suggestion
from distill_bench.tasks.task import Task
from distill_bench.training.engine import Engine, is_small
from distill_bench.training.images import Streamed
from distill_bench.training.lane_layout import LayoutOptions, make_layout
from distill_bench.training.source import open_feed, open_source
from distill_bench.views.host_crops import is_streamed
from optimizers.contract.api import Optimizer
from sweeps.planning.parsing import cast, parse_settings
from sweeps.timing import clock, measure, update_cost
from sweeps.timing.step_cost import step_cost

Figures = dict[str, Any]


def updates(opt: Optimizer, baseline: Optimizer, shapes: str, settings: Sequence[str]) -> Figures:
    """Single updates of `opt` with these settings ("name=value"), and of the baseline.

    shapes: see update_cost.parameter_shapes.

    Raises:
      UserError: if a setting is not understood.
    """
    values = {}
    for name, setting in parse_settings([], settings).items():
        if name not in opt.defaults:
            raise UserError(
                f"{opt.name} has no hyperparameter {name!r}.{suggestion(name, list(opt.defaults))}"
                f"\nIt has: {', '.join(sorted(opt.defaults))}"
            )
        text, *more = setting.texts
        if more:
            raise UserError(
                f"{setting.typed(','.join(setting.texts))}: one value can be timed at a time, such "
                f"as {setting.typed(text)}"
            )
        values[name] = cast(setting, text, opt.defaults[name])
    changed = dataclasses.replace(opt, defaults={**opt.defaults, **values})
    return {
        "optimizer": opt.name,
        "baseline": baseline.name,
        "params": shapes,
        **values,
        **update_cost.optimizer_steps(changed, baseline, update_cost.parameter_shapes(shapes)),
    }


def input_rate(task: Task) -> Figures:
    """How fast this host reads the images of a streamed task."""
    return {"task": task.name, **measure.input_rate(open_feed(task))}


def teacher_placements(task: Task, options: LayoutOptions) -> Figures:
    """The teacher's forward pass, with its parameters on every device or divided."""
    source = open_source(task, make_layout(options=options, small=is_small(task)))
    return {"task": task.name, **measure.teacher_placements(source)}


def throughput(engine: Engine, opt: Optimizer, lanes: int, steps: int) -> Figures:
    """Whole training steps with one lane and with `lanes`."""
    task = engine.source.task
    on_cpu = engine.layout.mesh.devices.flat[0].platform == "cpu"
    peak = clock.matmul_peak(measure.devices_of(engine), 2048 if on_cpu else 8192, task.precision)
    figures: Figures = {
        "optimizer": opt.name,
        "task": task.name,
        "precision": task.precision,
        "matmul_peak_gflops": peak / 1e9,
    }
    if isinstance(images := engine.source.train_images, Streamed):
        figures |= measure.input_rate(images.feed())
    for count in sorted({1, lanes}):
        measured = measure.throughput(engine, opt, count, steps, peak)
        figures |= {f"{name}_{count}_lanes": value for name, value in measured.items()}
    return figures | {"peak_memory_mib": clock.memory_bytes() / 2**20}


def check_against(task: Task) -> None:
    """Whether `against_pytorch` can run.

    Raises:
      UserError: if PyTorch is not installed, or the task's step is not written in it.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "--against=pytorch needs PyTorch, which is not installed: "
            "pip install 'distill-bench[peers]'"
        )
    from sweeps.timing import peers

    peers.check(task)


def against_pytorch(engine: Engine, baseline: Optimizer, lanes: int, steps: int) -> Figures:
    """The engine and the same training step in PyTorch, in turn."""
    from sweeps.timing import peers

    figures = {"optimizer": baseline.name, "task": engine.source.task.name, "lanes": lanes}
    return figures | peers.compare(engine, baseline, lanes, steps)


def check_whole(task: Task) -> None:
    """
    Raises:
      UserError: if `whole` cannot measure the task.
    """
    if task.precision != "float32" or is_streamed(task):
        why = "is for float32 tasks with images on the device, such as digits"
    elif task.teaching.labels or task.teaching.ensemble or not task.teachers:
        why = "is for tasks whose teacher runs at every step"
    else:
        return
    raise UserError(
        f"The full benchmark {why}. For {task.name}, use --throughput, --teacher or --input."
    )


def whole(engine: Engine, opt: Optimizer, baseline: Optimizer, lanes: int, steps: int) -> Figures:
    """Lanes against a single trial, and the shares in a trial-step of the teacher, of a student's
    step with the baseline, and of what `opt` adds to it."""
    layout = engine.layout
    peak = clock.matmul_peak(measure.devices_of(engine))
    first = measure.sweep(engine, opt, lanes, steps)  # compiles and warms up
    swept = measure.sweep(engine, opt, lanes, steps)
    alone = 1e3 * measure.one_by_one(engine, opt, min(steps, 50))
    networks = measure.networks(engine, peak)
    cost = step_cost(engine, opt, baseline)
    teacher_ms = networks["teacher_ms"] / lanes  # shared by all lanes
    trial_step_ms = teacher_ms + cost["step_ms"]
    return {
        "optimizer": opt.name,
        "baseline": baseline.name,
        "lanes": lanes,
        "layout": (
            f"{layout.mapping}, {layout.lanes} lanes a dispatch, {layout.rows} rows of devices on "
            f"each of {len(engine.islands)} clients"
        ),
        "engine_ms_per_trial_step": swept["ms_per_trial_step"],
        "single_trial_ms_per_step": alone,
        "engine_speedup": alone / swept["ms_per_trial_step"],
        "core_utilisation": swept["core_utilisation"],
        "compilations": first["compilations"],
        "matmul_peak_gflops": peak / 1e9,
        **cost,
        **networks,
        "teacher_share": teacher_ms / trial_step_ms,
        "baseline_share": cost["baseline_step_ms"] / trial_step_ms,
        "optimizer_share": (cost["step_ms"] - cost["baseline_step_ms"]) / trial_step_ms,
        "peak_memory_mib": clock.memory_bytes() / 2**20,
    }

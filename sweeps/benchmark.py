"""Measures how fast this machine trains.

Every ratio is taken within one run, after a warm-up.

python sweeps/benchmark.py
python sweeps/benchmark.py --opt=shampoo --lanes=8 --format=json
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a file: Python put this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench.command import Flags
from distill_bench.errors import UserError
from sweeps import cli

if TYPE_CHECKING:
    from distill_bench.tasks.task import Task
    from distill_bench.training.engine import Engine
    from distill_bench.training.lane_layout import LayoutOptions
    from optimizers.contract.api import Optimizer

FLAGS = Flags()

with FLAGS.group("What to measure"):
    flags.DEFINE_string("task", "digits", "The task.", flag_values=FLAGS)
    flags.DEFINE_string(
        "opt",
        None,
        "The optimizer. Default: the leaderboard's baseline.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "lanes",
        8,
        "Number of learning rates that train on one stream.",
        lower_bound=1,
        flag_values=FLAGS,
    )
    flags.DEFINE_integer("steps", 500, "Steps of each lane.", lower_bound=10, flag_values=FLAGS)

with FLAGS.group("Measure one thing only"):
    flags.DEFINE_enum(
        "params",
        None,
        ["twenty", "r50x1"],
        "single updates by the optimizer, on parameters of these shapes.",
        flag_values=FLAGS,
    )
    flags.DEFINE_multi_string(
        "set", [], "With --params: name=value sets a hyperparameter", flag_values=FLAGS
    )
    flags.DEFINE_bool(
        "throughput",
        False,
        "Whole training steps with one lane and with --lanes; for the paper's tasks.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "input",
        False,
        "How fast this host reads the images of a streamed task.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "teacher",
        False,
        "The teacher's forward, with its parameters copied to every device or split over those "
        "that share a batch.",
        flag_values=FLAGS,
    )

with FLAGS.group("Where it runs"):
    flags.DEFINE_integer(
        "devices",
        None,
        "Number of devices to use, or to divide a CPU's cores into. Default: all; one per core.",
        lower_bound=1,
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "batch_shards",
        None,
        "Number of devices that share each trial's batch. Default: 1.",
        lower_bound=1,
        flag_values=FLAGS,
    )
    flags.DEFINE_enum(
        "lane_mapping",
        None,
        ["dispatch", "loop", "vmap"],
        "a program for each trial, or one for several, in turn or batched. Default: chosen by "
        "platform.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "lanes_per_device",
        None,
        "Trials in one program on each device, with loop or vmap.",
        lower_bound=1,
        flag_values=FLAGS,
    )

with FLAGS.group("Output"):
    flags.DEFINE_enum(
        "format", "text", ["text", "json"], "how to print the figures.", flag_values=FLAGS
    )


def main() -> int:
    cli.set_up_jax(None)  # no cache of programs, because compilation is measured
    from distill_bench.tasks import catalogue
    from distill_bench.training.lane_layout import LayoutOptions
    from sweeps.board.entries import BASELINE
    from sweeps.execution.resources import Resources
    from sweeps.planning.plug_ins import resolve

    opt, baseline = (resolve(name).optimizer for name in (FLAGS.opt or BASELINE, BASELINE))
    if FLAGS.params:
        return _show(_updates(opt, baseline))
    task = catalogue.get(FLAGS.task)
    if FLAGS.input:
        return _show(_input_rate(task))
    if not (FLAGS.teacher or FLAGS.throughput) and task.precision != "float32":
        raise UserError(
            f"The full benchmark is for float32 tasks, such as digits. For {FLAGS.task}, use "
            "--throughput, --teacher or --input."
        )
    options = LayoutOptions(
        devices=FLAGS.devices,
        batch_shards=FLAGS.batch_shards,
        mapping=FLAGS.lane_mapping,
        lanes_per_device=FLAGS.lanes_per_device,
    )
    if FLAGS.teacher:
        return _show(_teacher_placements(task, options))
    engine = Resources(layout=options).open_engine(task)
    return _show(_throughput(engine, opt) if FLAGS.throughput else _engine(engine, opt, baseline))


def _updates(opt: Optimizer, baseline: Optimizer) -> dict[str, Any]:
    from sweeps.planning.parsing import cast, parse_settings
    from sweeps.timing import update_cost

    settings = {
        name: cast(name, values[0], opt.defaults.get(name))
        for name, values in parse_settings([], FLAGS.set).items()
    }
    changed = dataclasses.replace(opt, defaults={**opt.defaults, **settings})
    return {
        "optimizer": opt.name,
        "baseline": baseline.name,
        "params": FLAGS.params,
        **settings,
        **update_cost.optimizer_steps(
            changed, baseline, update_cost.parameter_shapes(FLAGS.params)
        ),
    }


def _input_rate(task: Task) -> dict[str, Any]:
    from distill_bench.training.source import open_feed
    from sweeps.timing import measure

    return {"task": FLAGS.task, **measure.input_rate(open_feed(task))}


def _teacher_placements(task: Task, options: LayoutOptions) -> dict[str, Any]:
    from distill_bench.training.engine import is_small
    from distill_bench.training.lane_layout import make_layout
    from distill_bench.training.source import open_source
    from sweeps.timing import measure

    source = open_source(task, make_layout(options=options, small=is_small(task)))
    return {"task": FLAGS.task, **measure.teacher_placements(source)}


def _throughput(engine: Engine, opt: Optimizer) -> dict[str, Any]:
    from distill_bench.training.images import Streamed
    from sweeps.timing import measure

    task = engine.source.task
    on_cpu = engine.layout.mesh.devices.flat[0].platform == "cpu"
    peak = measure.matmul_peak(2048 if on_cpu else 8192, task.precision, engine.layout.mesh.size)
    figures: dict[str, Any] = {
        "optimizer": opt.name,
        "task": FLAGS.task,
        "precision": task.precision,
        "matmul_peak_gflops": peak / 1e9,
    }
    if isinstance(images := engine.source.train_images, Streamed):
        figures |= measure.input_rate(images.feed())
    for lanes in sorted({1, FLAGS.lanes}):
        measured = measure.throughput(engine, opt, lanes, FLAGS.steps, peak)
        figures |= {f"{name}_{lanes}_lanes": value for name, value in measured.items()}
    return figures | {"peak_memory_mib": measure.memory_bytes() / 2**20}


def _engine(engine: Engine, opt: Optimizer, baseline: Optimizer) -> dict[str, Any]:
    """Lanes against a single trial, and the shares of teacher, student and update in a step."""
    from sweeps.timing import measure, update_cost

    layout = engine.layout
    peak = measure.matmul_peak()
    first = measure.sweep(engine, opt, FLAGS.lanes, FLAGS.steps)  # compiles and warms up
    lanes = measure.sweep(engine, opt, FLAGS.lanes, FLAGS.steps)
    alone = 1e3 * measure.one_by_one(engine, opt, min(FLAGS.steps, 50))
    networks = measure.networks(engine, peak)
    cost = update_cost.optimizer_cost(engine.source.task, opt, baseline)
    teacher_ms = networks["teacher_ms"] / FLAGS.lanes  # shared by all lanes
    update_ms = cost["update_ms"] / layout.rows
    step_ms = teacher_ms + networks["student_ms"] + update_ms
    return {
        "optimizer": opt.name,
        "baseline": baseline.name,
        "lanes": FLAGS.lanes,
        "layout": (
            f"{layout.mapping}, {layout.lanes} lanes a dispatch on {layout.rows} rows of devices"
        ),
        "engine_ms_per_trial_step": lanes["ms_per_trial_step"],
        "single_trial_ms_per_step": alone,
        "engine_speedup": alone / lanes["ms_per_trial_step"],
        "core_utilisation": lanes["core_utilisation"],
        "compilations": first["compilations"],
        "matmul_peak_gflops": peak / 1e9,
        **networks,
        "teacher_share": teacher_ms / step_ms,
        "student_share": networks["student_ms"] / step_ms,
        "optimizer_share": update_ms / step_ms,
        **cost,
        "peak_memory_mib": measure.memory_bytes() / 2**20,
    }


def _show(figures: dict[str, Any]) -> int:
    from sweeps.planning.environment import environment

    figures["environment"] = environment()
    if FLAGS.format == "json":
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            print(f"{name:36} {value:.3f}" if isinstance(value, float) else f"{name:36} {value}")
    return cli.OK


def script() -> None:
    cli.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    script()

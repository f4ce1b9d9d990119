"""Measures the engine on this machine; every ratio is taken within one run, after a warm-up.

python sweeps/benchmark.py
python sweeps/benchmark.py --opt=shampoo --lanes=8 --format=json
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_bench.training.source import open_feed, open_source
from sweeps.execution.resources import Resources

if not __package__:  # run as a file, Python put this folder on the path in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench.errors import UserError
from sweeps import cli

if TYPE_CHECKING:
    from distill_bench.training.engine import Engine
    from optimizers.contract.api import Optimizer

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "opt",
    None,
    "The optimizer whose lanes and updates are measured. Default: the leaderboard's baseline.",
)
flags.DEFINE_string("task", "digits", "The task.")
flags.DEFINE_integer("lanes", 8, "Learning rates that share one stream.", lower_bound=1)
flags.DEFINE_integer("steps", 500, "Steps of each lane.", lower_bound=10)
flags.DEFINE_enum(
    "params",
    None,
    ["twenty", "r50x1"],
    "Time single updates alone, on parameters of these shapes, and nothing else.",
)
flags.DEFINE_bool(
    "teacher",
    False,
    "Compare the teacher's parameters on every device with parameters cut over a batch's devices, and nothing else.",
)
flags.DEFINE_bool(
    "throughput",
    False,
    "Time whole training steps with one lane and with --lanes, and nothing else: for the paper's tasks.",
)
flags.DEFINE_bool(
    "input", False, "Time how fast this host reads the images of a streamed task, and nothing else."
)
flags.DEFINE_multi_string("set", [], "name=value: a hyperparameter of the optimizer, for --params.")
flags.DEFINE_enum("lane_mapping", None, ["dispatch", "loop", "vmap"], "As in run.py.")
flags.DEFINE_integer("lanes_per_device", None, "As in run.py.", lower_bound=1)
flags.DEFINE_integer("devices", None, "As in run.py.", lower_bound=1)
flags.DEFINE_integer("batch_shards", None, "As in run.py.", lower_bound=1)
flags.DEFINE_enum("format", "text", ["text", "json"], "How to print the figures.")


def main() -> int:
    cli.set_up_jax(None, FLAGS.devices)  # compilations are measured: none comes from a cache
    from distill_bench.tasks import catalogue
    from distill_bench.training.engine import is_small
    from distill_bench.training.lane_layout import LayoutOptions, make_layout
    from sweeps.board.entries import BASELINE
    from sweeps.planning import plan
    from sweeps.timing import measure, update_cost

    opt, baseline = (plan.resolve(name).optimizer for name in (FLAGS.opt or BASELINE, BASELINE))
    if FLAGS.params:
        return _show(
            {"optimizer": opt.name, "baseline": baseline.name, "params": FLAGS.params}
            | _updates(opt, baseline)
            | {"environment": plan.environment()}
        )
    if FLAGS.input:
        return _show(
            {"task": FLAGS.task}
            | measure.input_rate(open_feed(catalogue.get(FLAGS.task)))
            | {"environment": plan.environment()}
        )
    if not (FLAGS.teacher or FLAGS.throughput) and catalogue.get(FLAGS.task).precision != "float32":
        raise UserError(
            f"What is compared here is of float32 tasks, such as digits. For {FLAGS.task}: --throughput, --teacher or --input."
        )
    options = LayoutOptions(
        devices=FLAGS.devices,
        batch_shards=FLAGS.batch_shards,
        mapping=FLAGS.lane_mapping,
        lanes_per_device=FLAGS.lanes_per_device,
    )
    where = Resources(layout=options)
    if FLAGS.teacher:
        source = open_source(
            catalogue.get(FLAGS.task),
            make_layout(options=options, small=is_small(catalogue.get(FLAGS.task))),
        )
        return _show(
            {"task": FLAGS.task}
            | measure.teacher_placements(source)
            | {"environment": plan.environment()}
        )
    engine = where.open_engine(catalogue.get(FLAGS.task))
    if FLAGS.throughput:
        return _show(
            {"optimizer": opt.name, "task": FLAGS.task}
            | _throughput(engine, opt)
            | {"environment": plan.environment()}
        )
    peak = measure.matmul_peak()
    first = measure.sweep(engine, opt, FLAGS.lanes, FLAGS.steps)  # compiles, and warms up
    lanes = measure.sweep(engine, opt, FLAGS.lanes, FLAGS.steps)
    alone = 1e3 * measure.one_by_one(engine, opt, min(FLAGS.steps, 50))
    networks = measure.networks(engine, peak)
    cost = update_cost.optimizer_cost(engine.source.task, opt, baseline)
    whole = (
        networks["teacher_ms"] / FLAGS.lanes
        + networks["student_ms"]
        + cost["update_ms"] / engine.layout.rows
    )
    figures = {
        "optimizer": opt.name,
        "baseline": baseline.name,
        "lanes": FLAGS.lanes,
        "layout": f"{engine.layout.mapping}, {engine.layout.lanes} lanes a dispatch on {engine.layout.rows} rows of devices",
        "engine_ms_per_trial_step": lanes["ms_per_trial_step"],
        "single_trial_ms_per_step": alone,
        "engine_speedup": alone / lanes["ms_per_trial_step"],
        "core_utilisation": lanes["core_utilisation"],
        "compilations": first["compilations"],
        "matmul_peak_gflops": peak / 1e9,
        **networks,
        "teacher_share": networks["teacher_ms"] / FLAGS.lanes / whole,
        "student_share": networks["student_ms"] / whole,
        "optimizer_share": cost["update_ms"] / engine.layout.rows / whole,
        **cost,
        "peak_memory_mib": measure.memory_bytes() / 2**20,
        "environment": plan.environment(),
    }
    return _show(figures)


def _throughput(engine: Engine, opt: Optimizer) -> dict[str, Any]:
    from distill_bench.training.images import Streamed
    from sweeps.timing import measure

    task = engine.source.task
    on_cpu = engine.layout.mesh.devices.flat[0].platform == "cpu"
    peak = measure.matmul_peak(2048 if on_cpu else 8192, task.precision, engine.layout.mesh.size)
    found: dict[str, Any] = {"precision": task.precision, "matmul_peak_gflops": peak / 1e9}
    if isinstance(images := engine.source.train_images, Streamed):
        found |= measure.input_rate(images.feed())
    for lanes in sorted({1, FLAGS.lanes}):
        figures = measure.throughput(engine, opt, lanes, FLAGS.steps, peak)
        found |= {f"{name}_{lanes}_lanes": value for name, value in figures.items()}
    return found | {"peak_memory_mib": measure.memory_bytes() / 2**20}


def _updates(opt: Optimizer, baseline: Optimizer) -> dict[str, Any]:
    from sweeps.planning import plan
    from sweeps.timing import update_cost

    settings = {
        name: plan.cast(name, values[0], opt.defaults.get(name))
        for name, values in plan.parse_settings([], FLAGS.set).items()
    }
    named = dataclasses.replace(opt, defaults={**opt.defaults, **settings})
    return settings | update_cost.optimizer_steps(
        named, baseline, update_cost.parameter_shapes(FLAGS.params)
    )


def _show(figures: dict[str, Any]) -> int:
    if FLAGS.format == "json":
        print(json.dumps(figures, indent=1))
    else:
        for name, value in figures.items():
            print(f"{name:36} {value:.3f}" if isinstance(value, float) else f"{name:36} {value}")
    return cli.OK


def script() -> None:
    cli.run(main, __doc__ or "")


if __name__ == "__main__":
    script()

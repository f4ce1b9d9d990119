"""Measures how fast this machine trains.

Every ratio is taken within one run, after a warm-up.

python sweeps/benchmark.py
python sweeps/benchmark.py --opt=shampoo --lanes=8 --format=json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: Python put this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench.command import Flags
from distill_bench.errors import UserError
from sweeps import cli

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

    flags.DEFINE_bool(
        "profile",
        False,
        "One trial's step, operation by operation, on one device; on a CPU, one core.",
        flag_values=FLAGS,
    )
    flags.DEFINE_enum(
        "against",
        None,
        ["pytorch"],
        "the same training step in PyTorch, eager and compiled, in turn with the engine.",
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


# The flags that choose what is measured, and which of the flags that say how go with each.
_LAYOUT = {"devices", "batch_shards", "lane_mapping", "lanes_per_device"}
_WHOLE = {"task", "opt", "lanes", "steps"} | _LAYOUT
_GOES_WITH = {
    "params": {"opt", "set"},
    "throughput": _WHOLE,
    "input": {"task"},
    "teacher": {"task", "devices", "batch_shards"},
    "profile": {"task", "opt"},
    "against": _WHOLE - {"opt"},  # AdamW on both sides
}


def main() -> int:
    _check_flags()
    devices = 1 if FLAGS.profile else FLAGS.devices
    cli.set_up_jax(None)  # no cache of programs, because compilation is measured
    _check_devices()
    from distill_bench.tasks import catalogue
    from distill_bench.training.lane_layout import LayoutOptions
    from sweeps.board.entries import BASELINE
    from sweeps.execution.resources import Resources
    from sweeps.planning.plug_ins import resolve
    from sweeps.timing import figures

    opt, baseline = (
        resolve(BASELINE if name is None else name).optimizer for name in (FLAGS.opt, None)
    )
    if FLAGS.params:
        return _show(figures.updates(opt, baseline, FLAGS.params, FLAGS.set))
    task = catalogue.get(FLAGS.task)
    if FLAGS.input:
        return _show(figures.input_rate(task))
    options = LayoutOptions(
        devices=devices,
        batch_shards=FLAGS.batch_shards,
        mapping=FLAGS.lane_mapping,
        lanes_per_device=FLAGS.lanes_per_device,
    )
    if FLAGS.teacher:
        return _show(figures.teacher_placements(task, options))
    if FLAGS.against:
        figures.check_against(task)
    elif not (FLAGS.throughput or FLAGS.profile):
        figures.check_whole(task)
    engine = Resources(layout=options).open_engine(task)
    if FLAGS.profile:
        from sweeps.timing import step_profile

        return _show(step_profile.profile(engine, opt))
    if FLAGS.against:
        return _show(figures.against_pytorch(engine, baseline, FLAGS.lanes, FLAGS.steps))
    if FLAGS.throughput:
        return _show(figures.throughput(engine, opt, FLAGS.lanes, FLAGS.steps))
    return _show(figures.whole(engine, opt, baseline, FLAGS.lanes, FLAGS.steps))


def _check_flags() -> None:
    """Refuses a flag that would have no effect, because another one chooses what is measured."""
    chosen = [name for name in _GOES_WITH if FLAGS[name].value]
    if len(chosen) > 1:
        raise UserError(
            f"--{chosen[0]} and --{chosen[1]} each measure one thing only: choose one of them."
        )
    used = _GOES_WITH[chosen[0]] if chosen else _WHOLE
    for name in FLAGS:
        if FLAGS[name].present and name not in used | {*_GOES_WITH, "format"}:
            where = f"with --{chosen[0]}" if chosen else "in the full benchmark"
            homes = ", ".join(f"--{home}" for home, names in _GOES_WITH.items() if name in names)
            raise UserError(
                f"--{name} has no effect {where}: leave it out. It goes with {homes}"
                + (" and the full benchmark." if name in _WHOLE else ".")
            )


def _check_devices() -> None:
    import jax

    on_cpu = jax.default_backend() == "cpu"  # cores can be divided into any number
    if FLAGS.devices and not on_cpu and FLAGS.devices > jax.local_device_count():
        raise UserError(
            f"--devices={FLAGS.devices}: this machine has {jax.local_device_count()} "
            f"{jax.default_backend().upper()} devices."
        )


def _show(figures: dict[str, Any]) -> int:
    from sweeps.planning.environment import environment

    figures["environment"] = environment()
    if FLAGS.format == "json":
        print(json.dumps(figures, indent=1))
        return cli.OK
    tables = {name: value for name, value in figures.items() if isinstance(value, list)}
    for name, value in figures.items():
        if name not in tables:
            print(f"{name:36} {_text(value)}")
    for rows in tables.values():
        print()
        _print_table(rows)
    return cli.OK


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _print_table(rows: list[dict[str, Any]]) -> None:
    cells = [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def script() -> None:
    cli.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    script()

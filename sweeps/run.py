"""Tunes optimizers on a frozen distillation task and compares them.

python sweeps/run.py --opt=shampoo
python sweeps/run.py --opt=adamw,./my_opt.py --horizons=250,500,1000 --trials=16 --seeds=5
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file, Python put this folder on the path in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench import machine
from distill_bench.errors import UserError
from sweeps import cli

if TYPE_CHECKING:
    from sweeps.execution.resources import Resources
    from sweeps.planning.request import PlanRequest

FLAGS = flags.FLAGS
flags.DEFINE_spaceseplist(
    "opt",
    [],
    "Optimizers: built-in names, 'all' of them, ./file.py, optax:name, package.module:attribute.",
    comma_compat=True,
)
flags.DEFINE_string("task", "digits", "The task.")
flags.DEFINE_string(
    "mode",
    "mix",
    "What teacher and student see: mix (the task itself), same/ic, same/rc, ind/ic, ind/rc, fix/rs, fix/cc, fix/ic_ens.",
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Where prepared data sets lie. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.",
)
flags.DEFINE_string(
    "weights_dir",
    None,
    "Where published and fine-tuned weights lie. Default: $DISTILL_BENCH_CACHE, else ~/.cache/distill-bench/weights.",
)
flags.DEFINE_bool(
    "synthetic",
    False,
    "Random images and teacher of the real shapes: for dry runs and benchmarks, on any machine.",
)
flags.DEFINE_integer(
    "resolution", None, "Pixels of a view, for a trial of a large task on a small machine."
)
flags.DEFINE_integer("batch_size", None, "Images in a batch, likewise.")
flags.DEFINE_string("student", None, "Another student for a task of the paper.")
flags.DEFINE_string(
    "teacher",
    None,
    "Other weights for the teacher: a published name, or that of an .npz in --weights_dir, such as a fine-tuned one.",
)
flags.DEFINE_string(
    "start",
    None,
    "Weights, likewise, such as BiT-M-R50x1, that every student starts from; with a fresh classifier for other classes.",
)
flags.DEFINE_string(
    "images", None, "The task of whose training images views are made, in place of its own."
)
flags.DEFINE_spaceseplist(
    "horizons",
    [],
    "Steps of each rung, rising; 'ladder' for all of the task's. Default: its first two.",
    comma_compat=True,
)
flags.DEFINE_integer("trials", 8, "Tuning trials of each optimizer at each horizon.")
flags.DEFINE_integer("seeds", 3, "Final runs of each winner, on fresh seeds.")
flags.DEFINE_string("outdir", "runs", "Where results and TensorBoard curves go.")
flags.DEFINE_spaceseplist(
    "lr", [], "Learning rates to try in place of the declared range.", comma_compat=True
)
flags.DEFINE_multi_string(
    "set", [], "name=value[,value]: fixes a hyperparameter, or lists the values to try."
)
flags.DEFINE_enum(
    "executor",
    "local",
    ["local", "ray"],
    "Where trials run: on this machine, or on a Ray cluster.",
)
flags.DEFINE_string(
    "ray_address",
    None,
    "The Ray cluster's address, 'auto' for the one this machine is part of. Default: start one here.",
)
flags.DEFINE_bool(
    "multihost",
    False,
    "Spread every trial's batch over the devices of all hosts: run the same command on each.",
)
flags.DEFINE_string(
    "coordinator",
    None,
    "With --multihost, host:port of process 0, where the cluster does not tell.",
)
flags.DEFINE_integer(
    "processes",
    None,
    "With --multihost, how many processes there are, where the cluster does not tell.",
)
flags.DEFINE_integer(
    "process",
    None,
    "With --multihost, which process this is, from 0, where the cluster does not tell.",
)
flags.DEFINE_string(
    "shard",
    "0/1",
    "i/n: run slice i of n, for array jobs; run again when all slices are done, for the final runs.",
)
flags.DEFINE_bool("dry_run", False, "Print the plan and its estimated time, and stop.")
flags.DEFINE_bool("list", False, "List optimizers and tasks, and stop.")
flags.DEFINE_string(
    "cache",
    "~/.cache/distill-bench",
    "Where compiled programs are kept between runs; empty for nowhere.",
)
flags.DEFINE_integer(
    "devices",
    None,
    "Devices to use; on CPU, into how many the cores are divided. Default: all.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "batch_shards",
    None,
    "Devices that share each trial's batch. Default: 1; with --multihost all.",
    lower_bound=1,
)
flags.DEFINE_enum(
    "lane_mapping",
    None,
    ["dispatch", "loop", "vmap"],
    "How a device runs its trials: each by itself, or several in one program.",
)
flags.DEFINE_integer(
    "lanes_per_device",
    None,
    "Trials in one program on each device, for loop and vmap.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "microbatches",
    1,
    "Equal parts of a batch whose gradients are computed one after another, for less memory.",
    lower_bound=1,
)
flags.DEFINE_bool(
    "remat",
    False,
    "Compute a student's activations again in the backward pass, for less memory and more time.",
)
flags.DEFINE_bool(
    "profile",
    False,
    "Write a trace of a few chunks of steps into --outdir, where TensorBoard finds it.",
)
flags.DEFINE_bool(
    "diagnostics",
    False,
    "Also show what optimizers tell of themselves, such as Shampoo's residuals, in TensorBoard.",
)
flags.DEFINE_float(
    "checkpoint_seconds",
    30.0,
    "Seconds between checkpoints of the trials under way.",
    lower_bound=0.0,
)
flags.DEFINE_float(
    "stall_seconds",
    600.0,
    "Seconds without progress after which an optimizer counts as hanging.",
    lower_bound=1.0,
)
flags.DEFINE_float(
    "memory_gib",
    0.0,
    "Memory that the computing process may take, in GiB; 0 for any.",
    lower_bound=0.0,
)


def main() -> int:
    if FLAGS.list:
        return _list()
    cache = str(Path(FLAGS.cache).expanduser()) if FLAGS.cache else None
    machine.choose_folders(FLAGS.data_dir, FLAGS.weights_dir)
    if FLAGS.dry_run:
        cli.set_up_jax(cache)
        from sweeps.planning import estimate
        from sweeps.planning.plan import make_plan

        print(estimate.describe(make_plan(_plan_request())))
        return cli.OK
    if FLAGS.multihost and FLAGS.executor == "ray":
        raise UserError(
            "--multihost spreads one sweep over hosts that know each other; with --executor=ray, "
            "Ray places the trials: use one of them."
        )
    if FLAGS.profile and FLAGS.executor == "ray":
        raise UserError(
            "--profile traces the process that trains, but with --executor=ray every trial has "
            "another: leave one of them out."
        )
    from sweeps.execution.progress import progress
    from sweeps.execution.request import Request
    from sweeps.execution.supervise import Limits, supervise

    request = Request(_plan_request(), FLAGS.outdir, _resources(cache))
    with progress() as display:
        studies = supervise(request, Limits(FLAGS.stall_seconds, FLAGS.memory_gib), display)
    # With --multihost, only process 0 has studies.
    return _show(studies) if studies else cli.OK


def _list() -> int:
    from distill_bench.tasks import catalogue
    from optimizers.contract import registry

    print("Optimizers:", ", ".join(registry.builtins()))
    for task in map(catalogue.get, catalogue.names()):
        print(
            f"Task: {task.name} ({task.fingerprint()}), horizons {', '.join(map(str, task.horizons))}"
        )
    return cli.OK


def _plan_request() -> PlanRequest:
    from distill_bench.tasks.variation import Variation
    from sweeps.planning.request import PlanRequest

    return PlanRequest(
        opts=tuple(FLAGS.opt),
        task=FLAGS.task,
        horizons=tuple(FLAGS.horizons),
        trials=FLAGS.trials,
        seeds=FLAGS.seeds,
        learning_rates=tuple(FLAGS.lr),
        settings=tuple(FLAGS.set),
        shard=FLAGS.shard,
        variation=Variation(
            mode=FLAGS.mode,
            synthetic=FLAGS.synthetic,
            resolution=FLAGS.resolution,
            batch_size=FLAGS.batch_size,
            student=FLAGS.student,
            teacher=FLAGS.teacher,
            start=FLAGS.start,
            images=FLAGS.images,
        ),
    )


def _resources(cache: str | None) -> Resources:
    from distill_bench.training.lane_layout import LayoutOptions
    from sweeps.execution.multihost import Hosts
    from sweeps.execution.resources import Resources

    return Resources(
        executor="multihost" if FLAGS.multihost else FLAGS.executor,
        ray_address=FLAGS.ray_address,
        hosts=Hosts(FLAGS.coordinator, FLAGS.processes, FLAGS.process),
        cache=cache,
        checkpoint_seconds=FLAGS.checkpoint_seconds,
        layout=LayoutOptions(
            devices=FLAGS.devices,
            batch_shards=FLAGS.batch_shards,
            mapping=FLAGS.lane_mapping,
            lanes_per_device=FLAGS.lanes_per_device,
            microbatches=FLAGS.microbatches,
            remat=FLAGS.remat,
        ),
        profile=FLAGS.profile,
        diagnostics=FLAGS.diagnostics,
    )


def _show(folders: list[Path]) -> int:
    """Prints the table of these studies. Fails if an optimizer has no result."""
    from sweeps.board import run_table
    from sweeps.results import store

    studies = [store.load_study(folder) for folder in folders]
    rows, warnings = run_table.collect(studies)
    run_table.print_table(rows, warnings)
    run_table.print_certificates(studies)
    failed = sorted(
        {row.opt for row, _ in rows if row.status in ("crashed", "timeout", "diverged")}
    )
    if failed:
        print(f"No result for {', '.join(failed)}: see above.")
    print(f"{Path(sys.executable).parent / 'tensorboard'} --logdir {FLAGS.outdir}")
    return cli.FAILED if failed else cli.OK


def script() -> None:
    cli.run(main, __doc__ or "")


if __name__ == "__main__":
    script()

"""Tunes optimizers on a frozen distillation task and compares them.

python sweeps/run.py --opt=shampoo
python sweeps/run.py --opt=adamw,./my_opt.py --horizons=250,500,1000 --trials=16
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: Python put this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench import machine
from distill_bench.command import Flags
from distill_bench.errors import UserError
from sweeps import cli

if TYPE_CHECKING:
    from sweeps.execution.resources import Resources
    from sweeps.interface import Results
    from sweeps.planning.request import PlanRequest

FLAGS = Flags()

with FLAGS.group("What to compare"):
    flags.DEFINE_spaceseplist(
        "opt",
        [],
        "Optimizers, separated by commas: built-in names, 'all', ./file.py, optax:name or "
        "package.module:attribute.",
        comma_compat=True,
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "task",
        "digits",
        "The task: a name that --list shows, or module:NAME for your own.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "mode",
        "mix",
        "Teaching mode: mix (has the leaderboard), same/ic, same/rc, ind/ic, ind/rc, fix/rs, "
        "fix/cc or fix/ic_ens; labels trains without a teacher, for reference.",
        flag_values=FLAGS,
    )
    flags.DEFINE_float(
        "temperature",
        None,
        "Temperature of the distillation loss. Default: the task's.",
        flag_values=FLAGS,
    )
    flags.DEFINE_spaceseplist(
        "horizons",
        [],
        "Rungs: steps in rising order, or 'ladder' for all of the task's. Default: its first two.",
        comma_compat=True,
        flag_values=FLAGS,
    )

with FLAGS.group("How to search"):
    flags.DEFINE_integer(
        "trials",
        48,
        "Tuning trials of each optimizer at the shortest horizon; half as many at twice the steps.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "seeds", 3, "Final runs of each winner, on fresh seeds.", flag_values=FLAGS
    )
    flags.DEFINE_spaceseplist(
        "lr",
        [],
        "Learning rates to try, or a range such as 1e-3:1e-1. Default: the range that the "
        "optimizer declares.",
        comma_compat=True,
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "schedule",
        None,
        "A learning-rate schedule for all optimizers, outside the leaderboard: warmup_cosine, "
        "warmup_linear, wsd, constant, warmup_constant or warmup_quadratic. Default: each one's "
        "own, mostly warmup_cosine.",
        flag_values=FLAGS,
    )
    flags.DEFINE_multi_string(
        "set",
        [],
        "name=value fixes a hyperparameter, name=value,value tries several, name=low:high searches "
        "a range",
        flag_values=FLAGS,
    )

with FLAGS.group("Where it runs"):
    flags.DEFINE_enum(
        "executor",
        "local",
        ["local", "ray"],
        "train on this machine or on a Ray cluster.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "ray_address",
        None,
        "Address of the Ray cluster; 'auto' for the one that this machine belongs to. Default: "
        "start one here.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "multihost",
        False,
        "Spread each trial's batch over the devices of several hosts: run this command on each.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "With --multihost: host:port of process 0. Default: ask the cluster.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "processes",
        None,
        "With --multihost: the number of processes. Default: ask the cluster.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "process",
        None,
        "With --multihost: the number of this process, from 0. Default: ask the cluster.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "shard",
        "0/1",
        "i/n runs slice i of n, for array jobs; run it again when all slices are done, for the "
        "final runs.",
        flag_values=FLAGS,
    )
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
        "Number of devices that share each trial's batch. Default: 1; all with --multihost.",
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
    flags.DEFINE_float(
        "checkpoint_seconds",
        30.0,
        "Seconds between checkpoints of the trials that are running.",
        lower_bound=0.0,
        flag_values=FLAGS,
    )
    flags.DEFINE_float(
        "stall_seconds",
        600.0,
        "Seconds without progress after which an optimizer counts as hanging.",
        lower_bound=1.0,
        flag_values=FLAGS,
    )
    flags.DEFINE_float(
        "memory_gib",
        0.0,
        "Memory that the training process may use, in GiB. Default: no limit.",
        lower_bound=0.0,
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "cache",
        "~/.cache/distill-bench",
        "Folder that keeps compiled programs and measured costs between runs; empty for none.",
        flag_values=FLAGS,
    )

with FLAGS.group("Output"):
    flags.DEFINE_string(
        "outdir", "runs", "Folder for results and TensorBoard curves.", flag_values=FLAGS
    )
    flags.DEFINE_spaceseplist(
        "reference",
        [],
        "Entries of the leaderboard to show beside the results, such as muon,soap.",
        comma_compat=True,
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "export",
        None,
        "Folder for the trained students of the final runs, as .npz files with cards.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "dry_run",
        False,
        "Print the plan, what is left of it to run and how long that takes here, and stop.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool("list", False, "List optimizers and tasks, and stop.", flag_values=FLAGS)
    flags.DEFINE_bool(
        "diagnostics",
        False,
        "Show norms of gradients and updates, and Shampoo's and SOAP's residuals, in TensorBoard.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "profile",
        False,
        "Write a trace of a few chunks of steps to --outdir, for TensorBoard.",
        flag_values=FLAGS,
    )

with FLAGS.group("Large tasks"):
    flags.DEFINE_string(
        "data_dir",
        None,
        "Folder of the prepared data sets. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "weights_dir",
        None,
        "Folder of published and fine-tuned weights. Default: $DISTILL_BENCH_CACHE, else "
        "~/.cache/distill-bench/weights.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "student",
        None,
        "The student's network, such as mobilenetv3. Default: the task's.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "width",
        None,
        "Channels of a BiT student's first block: 8 and 32 are half and twice as wide as the small "
        "tasks' student. Default: the task's.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "teacher",
        None,
        "The teacher's weights: a published name, or that of an .npz file in --weights_dir. "
        "Default: the task's.",
        flag_values=FLAGS,
    )
    flags.DEFINE_enum(
        "teachers",
        None,
        ["mean", "sum"],
        "how several teachers teach: by their mean logits, or by the sum of their losses. "
        "Default: the task's.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "start",
        None,
        "Weights that every student starts from, such as BiT-M-R50x1; a classifier of other "
        "classes starts afresh. Default: random.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "images",
        None,
        "Images that training views are made of, such as food101. Default: the task's.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "synthetic",
        False,
        "Random images and weights of the real shapes, for dry runs and benchmarks on any machine.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "resolution",
        None,
        "Pixels of a view's side, to try a task on a small machine. Default: the task's.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "squeeze",
        None,
        "Squeeze images to squares of this side, such as 256, where memory is short: another task. "
        "Default: full resolution.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images in a batch, to try a task on a small machine. Default: the task's.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "microbatches",
        1,
        "Compute a batch's gradient in this many equal parts, one after another, to save memory.",
        lower_bound=1,
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "remat",
        False,
        "Recompute a student's activations in the backward pass: less memory, more time.",
        flag_values=FLAGS,
    )


def main() -> int:
    if FLAGS.list:
        return _list()
    cache = _absolute(FLAGS.cache) if FLAGS.cache else None
    machine.choose_folders(FLAGS.data_dir, FLAGS.weights_dir)
    if FLAGS.dry_run:
        return _dry_run(cache)
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
    from sweeps import interface
    from sweeps.execution.request import Request
    from sweeps.execution.watch import Limits

    export = _absolute(FLAGS.export) if FLAGS.export else None
    request = Request(_plan_request(), _absolute(FLAGS.outdir), _resources(cache), export=export)
    limits = Limits(FLAGS.stall_seconds, FLAGS.memory_gib)
    results = interface.run(request, limits, FLAGS.reference)
    # With --multihost, only process 0 has studies.
    code = _show(results, export) if results.folders else cli.OK
    return cli.FAILED if results.lost else code


def _absolute(folder: str) -> str:
    """The folder from the root on, because the code of an optimizer may change the current one."""
    return str(Path(folder).expanduser().absolute())


def _dry_run(cache: str | None) -> int:
    """Prints the plan, what of it is left to run, and how long that will take."""
    began = time.perf_counter()
    cli.set_up_jax(cache)
    outdir = _absolute(FLAGS.outdir)
    from distill_bench.training.engine import is_small
    from distill_bench.training.lane_layout import make_layouts
    from sweeps.execution.progress import progress
    from sweeps.planning import estimate
    from sweeps.planning.plan import make_plan
    from sweeps.results.pending import pending

    plan = make_plan(_plan_request())
    layouts = make_layouts(_resources(cache).layout, small=is_small(plan.task))
    planning = time.perf_counter() - began
    print(estimate.describe(plan), flush=True)
    left = pending(plan, Path(outdir))
    if rest := estimate.describe_rest(plan, left.tuning, left.finals, FLAGS.outdir):
        print(rest, flush=True)
    if left.tuning or left.finals:
        with progress() as display:
            found = estimate.estimate(
                plan, left.tuning, left.finals, layouts, cache, planning, display.say
            )
        print(found.describe())
        if FLAGS.executor == "ray" or FLAGS.multihost:
            print("other machines are not counted")
    return cli.OK


def _list() -> int:
    from distill_bench.tasks import catalogue
    from optimizers.contract import registry

    summaries = registry.summaries()
    print("Optimizers:")
    for name, summary in summaries.items():
        print(f"  {name.ljust(max(map(len, summaries)))}  {summary}")
    for task in map(catalogue.get, catalogue.names()):
        horizons = ", ".join(map(str, task.horizons))
        takes = catalogue.takes(task.name)
        print(
            f"Task: {task.name} ({task.fingerprint()}), horizons {horizons}{takes and f'; {takes}'}"
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
        schedule=FLAGS.schedule,
        variation=Variation(
            mode=FLAGS.mode,
            synthetic=FLAGS.synthetic,
            resolution=FLAGS.resolution,
            width=FLAGS.width,
            squeeze=FLAGS.squeeze,
            batch_size=FLAGS.batch_size,
            student=FLAGS.student,
            teacher=FLAGS.teacher,
            start=FLAGS.start,
            images=FLAGS.images,
            temperature=FLAGS.temperature,
            teachers=FLAGS.teachers,
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


def _show(results: Results, export: str | None) -> int:
    """Prints the table of the results. Fails if an optimizer has none."""
    from sweeps.board import run_table
    from sweeps.execution.export import describe

    run_table.print_table(results.rows, results.studies, results.horizons)
    if failed := results.failed:
        print(f"No result for {', '.join(failed)}: see above.")
    if export:
        print(describe(Path(export), results.studies))
    print(f"{Path(sys.executable).parent / 'tensorboard'} --logdir {_curves()}")
    return cli.FAILED if failed else cli.OK


def _curves() -> Path:
    """The folder of the final runs' TensorBoard curves; the tuning trials' lies beside it."""
    from sweeps.execution.tensorboard_runs import folder_of
    from sweeps.planning.plan import task_of

    return folder_of(Path(FLAGS.outdir), task_of(_plan_request()).name) / "finals"


def script() -> None:
    cli.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    script()

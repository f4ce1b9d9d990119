"""Tunes optimizers on a frozen distillation task and compares them.

python sweeps/run.py --opt=shampoo
python sweeps/run.py --opt=adamw,./my_opt.py --horizons=250,500,1000 --trials=16 --seeds=5
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file, Python put this folder on the path in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from sweeps import cli

FLAGS = flags.FLAGS
flags.DEFINE_spaceseplist("opt", [], "Optimizers: built-in names, ./file.py, package.module:attribute.", comma_compat=True)
flags.DEFINE_string("task", "digits", "The task.")
flags.DEFINE_spaceseplist("horizons", [], "Steps of each rung, rising; 'ladder' for all of the task's. Default: its first two.", comma_compat=True)
flags.DEFINE_integer("trials", 8, "Tuning trials of each optimizer at each horizon.")
flags.DEFINE_integer("seeds", 3, "Final runs of each winner, on fresh seeds.")
flags.DEFINE_string("outdir", "runs", "Where results and TensorBoard curves go.")
flags.DEFINE_spaceseplist("lr", [], "Learning rates to try in place of the declared range.", comma_compat=True)
flags.DEFINE_multi_string("set", [], "name=value[,value]: fixes a hyperparameter, or lists the values to try.")
flags.DEFINE_bool("dry_run", False, "Print the plan and its estimated time, and stop.")
flags.DEFINE_bool("list", False, "List optimizers and tasks, and stop.")
flags.DEFINE_string("cache", "~/.cache/distill-bench", "Where compiled programs are kept between runs; empty for nowhere.")


def main() -> int:
    if FLAGS.list:
        from distill_bench import task as tasks
        from optimizers import registry

        print("Optimizers:", ", ".join(registry.builtins()))
        for task in tasks.CATALOGUE.values():
            print(f"Task: {task.name} ({task.fingerprint()}), horizons {', '.join(map(str, task.horizons))}")
        return cli.OK
    cli.set_up_jax(str(Path(FLAGS.cache).expanduser()) if FLAGS.cache else None)
    from sweeps import plan, store

    the_plan = plan.make_plan(FLAGS.opt, FLAGS.task, FLAGS.horizons, FLAGS.trials, FLAGS.seeds, FLAGS.lr, FLAGS.set)
    if FLAGS.dry_run:
        from sweeps import estimate

        print(estimate.describe(the_plan))
        return cli.OK
    root = store.open_outdir(FLAGS.outdir)
    from sweeps import execute, report

    shown, warnings = report.collect(execute.execute(the_plan, root))
    report.print_table(shown, warnings)
    failed = [row.opt for row, _ in shown if row.status in ("crashed", "diverged")]
    if failed:
        print(f"No result of {', '.join(sorted(set(failed)))}: see above.")
    print(f"{Path(sys.executable).parent / 'tensorboard'} --logdir {FLAGS.outdir}")
    return cli.FAILED if failed else cli.OK


def script() -> None:
    cli.run(main, __doc__ or "")


if __name__ == "__main__":
    script()

"""The command `python -m distill_bench.teacher`: fine-tunes a teacher on a task's labels."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from absl import flags

from distill_bench import machine
from distill_bench.command import OK, Flags, run
from distill_bench.errors import UserError, suggestion
from distill_bench.weights import published

USAGE = """Fine-tunes a teacher on a task's labels, starting from trained weights, by
BiT-HyperRule. The learning rate is chosen on the validation split.

python -m distill_bench.teacher --task=pet37 --from=BiT-M-R101x3 [--lr=0.003,0.01]
python -m distill_bench.teacher --task=digits --out=digits_teacher.npz

The result is written to the weights folder, under the name that --teacher and
--start of sweeps/run.py take; an existing teacher is never replaced. Without
--from, a teacher that comes with this package (digits, fashion) is trained again
and written to --out.
A dry run:

python -m distill_bench.teacher --task=flowers102 --from=BiT-M-R50x1 \\
  --synthetic --resolution=32 --batch_size=8 --steps=4 --lr=0.003,0.01"""
EMBEDDED = ("digits", "fashion")  # tasks whose teachers come with this package
_SYNTHETIC = "-synthetic"  # ends the name of a dry run's file, which the next dry run replaces


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code, see distill_bench.command."""
    values = _flags()
    return run(
        lambda: _run(values),
        values,
        USAGE,
        argv,
        after_interrupt="The same command starts from the beginning.",
    )


def _flags() -> Flags:
    values = Flags()
    with values.group("What to train"):
        flags.DEFINE_string("task", None, "The task whose teacher to train.", flag_values=values)
        flags.DEFINE_string(
            "from",
            None,
            "Weights to start from: a published name, the name of an .npz file in the weights "
            "folder, or a path.",
            flag_values=values,
        )
        flags.DEFINE_spaceseplist(
            "lr",
            [],
            "Learning rates to try, all at once. Default: 0.001,0.003,0.01,0.03.",
            comma_compat=True,
            flag_values=values,
        )
        flags.DEFINE_integer(
            "steps",
            None,
            "Number of steps; the schedule is stretched to fit. Default: 500, 10,000 or 20,000, "
            "as BiT-HyperRule says.",
            lower_bound=1,
            flag_values=values,
        )
        flags.DEFINE_integer(
            "batch_size",
            None,
            "Images in a batch. Default: 512, as BiT-HyperRule says.",
            lower_bound=2,
            flag_values=values,
        )
    with values.group("To save memory, or for a dry run"):
        flags.DEFINE_bool(
            "in_turn",
            False,
            "Train one learning rate after another; each needs two copies of the parameters.",
            flag_values=values,
        )
        flags.DEFINE_integer(
            "microbatches",
            1,
            "Compute a batch's gradient in this many equal parts, one after another.",
            lower_bound=1,
            flag_values=values,
        )
        flags.DEFINE_bool(
            "remat",
            False,
            "Recompute activations in the backward pass: less memory, more time.",
            flag_values=values,
        )
        flags.DEFINE_bool(
            "synthetic",
            False,
            "Random images and weights of the real shapes, for a dry run on any machine.",
            flag_values=values,
        )
        flags.DEFINE_integer(
            "resolution",
            None,
            "Pixels of a view's side. Default: the task's.",
            flag_values=values,
        )
    with values.group("Folders and files"):
        flags.DEFINE_string(
            "out",
            None,
            "The .npz file to write, which must not exist. Default: <task>-<from>.npz in the "
            "weights folder.",
            flag_values=values,
        )
        flags.DEFINE_string(
            "data_dir",
            None,
            "Folder of the prepared data sets. Default: $TFDS_DATA_DIR, else "
            "~/tensorflow_datasets.",
            flag_values=values,
        )
        flags.DEFINE_string(
            "weights_dir",
            None,
            f"The weights folder. Default: ${machine.WEIGHTS_VARIABLE}, else "
            f"{published.DEFAULT_CACHE}.",
            flag_values=values,
        )
    return values


def _run(values: Flags) -> int:
    machine.choose_folders(values.data_dir, values.weights_dir)
    weights = values["from"].value
    if not values.task:
        raise UserError("Name the task whose teacher to train, such as --task=pet37. See --help.")
    if weights is not None:
        _fine_tune(_name_or_path(weights), values)
    elif values.task in EMBEDDED:
        _train_embedded_teacher(values)
    else:
        from distill_bench.tasks import catalogue

        task = catalogue.get(values.task)
        command = published.fetch_command(task.teacher_file)
        raise UserError(
            f"The teacher of {task.name} is published: {command}\n"
            "To train another, name the weights to start from, such as --from=BiT-M-R101x3."
        )
    return OK


def _train_embedded_teacher(values: Flags) -> None:
    unused = [
        f"--{name}"
        for name in values
        if name not in ("task", "out", "data_dir") and values[name].value != values[name].default
    ]
    if unused:
        raise UserError(
            f"{', '.join(unused)} cannot be used here: the teacher of {values.task} has a fixed "
            "recipe. To fine-tune a teacher of another task, add --from."
        )
    from distill_bench.tasks import catalogue
    from distill_bench.teacher import recipes

    task = catalogue.get(values.task)
    embedded = recipes.embedded_file(task)
    if not values.out:
        raise UserError(
            f"The teacher of {task.name} comes with this package. To train it again, name the file "
            f"to write, such as --out={task.teacher_file}.\n"
            f"You may also replace {embedded}, which the task reads; but with other bytes there, "
            "it is another task."
        )
    path = Path(values.out).expanduser().absolute()
    _check_writable(path, replaces=path.resolve() == embedded.resolve())
    recipes.main(task, path)


def _fine_tune(weights: str, values: Flags) -> None:
    rates = _learning_rates(values.lr)
    from distill_bench.tasks import catalogue
    from distill_bench.tasks.variation import Variation, vary
    from distill_bench.teacher import finetune, hyperrule
    from distill_bench.training import engine
    from distill_bench.training.lane_layout import LayoutOptions, make_layouts

    variation = Variation(synthetic=values.synthetic, resolution=values.resolution)
    varied = vary(catalogue.get(values.task), variation)
    task = finetune.make_task(varied, weights, values.batch_size)
    path = _output_path(weights, values, task.synthetic)
    _check_writable(path, replaces=task.synthetic and path.stem.endswith(_SYNTHETIC))
    if task.synthetic:
        _say("Random images and weights, for a dry run: the accuracies below mean nothing.")
    layouts = make_layouts(
        LayoutOptions(microbatches=values.microbatches, remat=values.remat),
        small=engine.is_small(task),
    )
    best = finetune.search(
        engine.open_engine(task, *layouts),
        rates or hyperrule.LEARNING_RATES,
        _say,
        values.steps,
        values.in_turn,
    )
    _say(f"Chosen: lr {best.learning_rate:g}, with validation accuracy {best.validation:.4f}")
    accuracy = finetune.accuracy_on_test(task, best.params)
    _say(f"Test accuracy {accuracy:.4f}{' (synthetic)' if task.synthetic else ''}")
    digest = finetune.export(task, best.params, path)
    _say(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, sha256 {digest}")
    if path.parent == published.folder() and not task.synthetic:
        _say(
            f"To use it: python sweeps/run.py --task={values.task} --teacher={path.stem} --opt=..."
        )


def _output_path(weights: str, values: Flags, synthetic: bool) -> Path:
    if values.out:
        return Path(values.out).expanduser().absolute()
    name = f"{values.task.replace('@', '-')}-{Path(weights).stem}"
    return published.folder() / f"{name}{_SYNTHETIC if synthetic else ''}.npz"


def _say(text: str) -> None:
    print(text, flush=True)


def _learning_rates(texts: list[str]) -> tuple[float, ...]:
    rates = []
    for text in texts:
        try:
            rate = float(text)
        except ValueError:
            rate = math.nan
        if not (0 < rate < math.inf):
            raise UserError(
                f"--lr={','.join(texts)}: {text!r} is not a learning rate. "
                "Write positive numbers, such as --lr=0.003,0.01."
            )
        rates.append(rate)
    return tuple(sorted(set(rates)))


def _name_or_path(given: str) -> str:
    """The name of the weights, or their path if there is such a file."""
    path = Path(given).expanduser()
    if given.endswith(".npz") and path.is_file():
        return str(path.absolute())
    if "/" in given:
        raise UserError(
            f"--from={given}: no .npz file found there."
            f"{suggestion(path.stem, published.CATALOGUE)}\n"
            "To list the published weights: python -m distill_bench.weights"
        )
    return given.removesuffix(".npz")


def _check_writable(path: Path, replaces: bool) -> None:
    """Refuses a path that cannot or must not be written, before hours of training.

    Args:
      replaces: an existing file may be replaced.
    """
    if path.suffix != ".npz" or path.stem in published.CATALOGUE:
        raise UserError(
            f"--out={path}: the name must end in .npz and must not be that of published weights."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UserError(f"{path} cannot be written: choose another --out.")
    if path.exists() and not replaces:
        raise UserError(
            f"{path} already exists and a study may use it: choose another --out, or remove it."
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv))

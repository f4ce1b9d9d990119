"""The command `python -m distill_bench.teacher`: fine-tunes a teacher on a task's labels, or makes that of the digits again."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from absl import flags

from distill_bench import machine
from distill_bench.errors import UserError, suggestion
from distill_bench.log import listen, to_stderr
from distill_bench.weights import published

USAGE = """Fine-tunes a teacher on a task's labels, from trained weights, by BiT-HyperRule; the learning rate is chosen on the validation split.

python -m distill_bench.teacher --task=pet37 --from=BiT-M-R101x3 [--lr=0.003,0.01]
python -m distill_bench.teacher --task=flowers102 --from=BiT-M-R50x1 --synthetic --resolution=32 --batch_size=8 --steps=4 --lr=0.003,0.01
python -m distill_bench.teacher --task=digits --out=digits_teacher.npz

The result lies in the weights folder, under the name that --teacher and --start of sweeps/run.py take; a teacher that is there is not replaced.
Without --from, the embedded teacher of the digits is trained again, to where --out says."""
DIGITS = "digits"
_SYNTHETIC = "-synthetic"  # ends the name of what a dry run writes, and the next one replaces


def _flags() -> flags.FlagValues:
    # Values of their own: this module's flags have names that scripts define, too.
    values = flags.FlagValues()
    flags.DEFINE_string("task", None, "Which task's teacher to train.", flag_values=values)
    flags.DEFINE_string(
        "from",
        None,
        "The weights to start from: a published name, that of an .npz in the weights folder, or a path.",
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
        "Steps in place of the rule's 500, 10,000 or 20,000, the schedule drawn out alike.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "in_turn",
        False,
        "One learning rate after another, to save memory: each takes two copies of the parameters.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "microbatches",
        1,
        "Equal parts of a batch, one after another, for less memory.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "remat",
        False,
        "Compute activations again in the backward pass, for less memory and more time.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "out",
        None,
        "Where to write the .npz; a file is not replaced. Default: <task>-<from>.npz in the weights folder.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "synthetic",
        False,
        "Random images and weights of the real shapes: a dry run, on any machine.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "resolution", None, "Pixels of a view. Default: the task's.", flag_values=values
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images in a batch. Default: the rule's 512.",
        lower_bound=2,
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Where prepared data sets lie. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "weights_dir",
        None,
        f"The weights folder. Default: ${machine.WEIGHTS_VARIABLE}, else {published.DEFAULT_CACHE}.",
        flag_values=values,
    )
    return values


def main(argv: list[str]) -> int:
    """Runs the command; the exit code is 0, 1 where a file cannot be written, 2 for what the user can mend."""
    values = _flags()
    if any(argument in ("--help", "-h", "-help", "--helpshort") for argument in argv[1:]):
        print(f"{USAGE}\n{values.get_help(include_special_flags=False)}")
        return 0
    listen(to_stderr)
    try:
        if extra := values(argv)[1:]:
            raise UserError(
                f"Unexpected argument {extra[0]!r}: flags are written --name=value. See --help."
            )
        _run(values)
    except (flags.Error, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The same command begins again.", file=sys.stderr)
        return 130
    return 0


def _run(values: flags.FlagValues) -> None:
    machine.choose_folders(values.data_dir, values.weights_dir)
    weights = values["from"].value
    if not values.task:
        raise UserError("Whose teacher? Name the task, such as --task=pet37. See --help.")
    if weights is not None:
        _fine_tune(_weights(weights), values)
    elif values.task == DIGITS:
        _train_digits_teacher(values)
    else:
        from distill_bench.tasks import catalogue

        task = catalogue.get(values.task)
        raise UserError(
            f"The teacher of {task.name} is published: {published.fetch_command(task.teacher_file)}\n"
            f"To make another, name the weights to start from: --from=BiT-M-R101x3"
        )


def _train_digits_teacher(values: flags.FlagValues) -> None:
    idle = [
        f"--{name}"
        for name in values
        if name not in ("task", "out") and values[name].value != values[name].default
    ]
    if idle:
        raise UserError(
            f"{', '.join(idle)}: of fine-tuning, which takes --from and another task than {DIGITS}. The teacher of {DIGITS} has one recipe."
        )
    from distill_bench.teacher import digits

    if not values.out:
        raise UserError(
            f"Where to? The teacher of {DIGITS} is embedded; to train it again, say where to write it, such as --out=digits_teacher.npz.\n"
            f"The task reads {digits.EMBEDDED}: that may be named, too, but other bytes there are another task."
        )
    path = Path(values.out).expanduser().absolute()
    _check_writable(path, replaces=path.resolve() == digits.EMBEDDED.resolve())
    digits.main(path)


def _fine_tune(weights: str, values: flags.FlagValues) -> None:
    rates = _learning_rates(values.lr)
    from distill_bench.tasks import catalogue
    from distill_bench.teacher import finetune, hyperrule
    from distill_bench.training import engine
    from distill_bench.training.lane_layout import LayoutOptions, make_layout

    varied = catalogue.vary(
        catalogue.get(values.task), synthetic=values.synthetic, resolution=values.resolution
    )
    task = finetune.make_task(varied, weights, values.batch_size)
    name = f"{values.task.replace('@', '-')}-{Path(weights).stem}{_SYNTHETIC if task.synthetic else ''}"
    path = (
        Path(values.out).expanduser().absolute()
        if values.out
        else published.folder() / f"{name}.npz"
    )
    _check_writable(path, replaces=task.synthetic and path.stem.endswith(_SYNTHETIC))
    if task.synthetic:
        _say("Random images and weights, for a dry run: no accuracy below means anything.")
    layout = make_layout(
        options=LayoutOptions(microbatches=values.microbatches, remat=values.remat),
        small=engine.is_small(task),
    )
    best = finetune.search(
        engine.open_engine(task, layout),
        rates or hyperrule.LEARNING_RATES,
        _say,
        values.steps,
        values.in_turn,
    )
    _say(f"Chosen: lr {best.learning_rate:g}, with validation accuracy {best.validation:.4f}")
    _say(
        f"Test accuracy {finetune.accuracy_on_test(task, best.params):.4f}{' (synthetic)' if task.synthetic else ''}"
    )
    digest = finetune.export(task, best.params, path)
    _say(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, sha256 {digest}")
    if path.parent == published.folder() and not task.synthetic:
        _say(
            f"As a teacher: python sweeps/run.py --task={values.task} --teacher={path.stem} --opt=..."
        )


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
                f"--lr={','.join(texts)}: {text!r} is no learning rate: write positive numbers, such as --lr=0.003,0.01."
            )
        rates.append(rate)
    return tuple(sorted(set(rates)))


def _weights(given: str) -> str:
    """The name of the weights, or the path of the file, where there is one at the path."""
    path = Path(given).expanduser()
    if given.endswith(".npz") and path.is_file():
        return str(path.absolute())
    if "/" in given:
        raise UserError(
            f"--from={given} is no .npz that is there.{suggestion(path.stem, published.CATALOGUE)}\nPublished: python -m distill_bench.weights"
        )
    return given.removesuffix(".npz")


def _check_writable(path: Path, replaces: bool) -> None:
    """Refuses the path before hours of training where the file could not be written there, or would replace one that it must not."""
    if path.suffix != ".npz" or path.stem in published.CATALOGUE:
        raise UserError(f"--out={path} cannot be: the name ends in .npz and is no published one.")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UserError(f"{path} cannot be written: choose another --out.")
    if path.exists() and not replaces:
        raise UserError(
            f"{path} is there already, and a study that names it needs it as it is: name another --out, or remove it."
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv))

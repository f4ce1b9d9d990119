"""The command `python -m distill_bench.data`: prepares data sets, and lists which are prepared."""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from distill_bench.command import OK, Flags, run
from distill_bench.data import datasets
from distill_bench.errors import UserError, suggestion

USAGE = """Prepares data sets for training, once: those of TensorFlow Datasets (TFDS), and
Fashion-MNIST. This needs a network. Without a subcommand, lists which are prepared.

python -m distill_bench.data [--data_dir=DIR]
python -m distill_bench.data prepare --task=flowers102 [--data_dir=DIR]"""
PREPARE = "prepare"
FASHION = "fashion"  # needs no TFDS
_NAMES = (FASHION, *datasets.CATALOGUE)


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit code, see distill_bench.command."""
    values = _flags()
    return run(
        lambda arguments: _run(arguments, values),
        values,
        USAGE,
        argv,
        takes_arguments=True,
        after_interrupt="The same command repeats what TFDS has not finished.",
    )


def _flags() -> Flags:
    values = Flags()
    with values.group("Flags"):
        flags.DEFINE_string(
            "task",
            None,
            f"The data set to prepare: {', '.join(_NAMES)}.",
            flag_values=values,
        )
        flags.DEFINE_string(
            "data_dir",
            None,
            "Folder of all data sets. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.",
            flag_values=values,
        )
        flags.DEFINE_string(
            "manual_dir",
            None,
            "Folder of the archives that you must download yourself (imagenet2012). Default: "
            "downloads/manual in --data_dir.",
            flag_values=values,
        )
    return values


def _run(arguments: list[str], values: Flags) -> int:
    data_dir = datasets.data_dir(values.data_dir)
    if not arguments:
        return _show(data_dir)
    if arguments != [PREPARE]:
        unknown = next((argument for argument in arguments if argument != PREPARE), arguments[-1])
        raise UserError(
            f"Unknown subcommand {unknown!r}.{suggestion(unknown, [PREPARE])}\n"
            f"The only one is {PREPARE}. See --help."
        )
    if values.task is None:
        raise UserError(f"Name the data set: --task=NAME, one of {', '.join(_NAMES)}.")
    if values.task == FASHION:
        from distill_bench.data import fashion_mnist

        fashion_mnist.load(data_dir)
        print("Fashion-MNIST is here, and each of its files is the published one.")
        return OK
    dataset = datasets.get(values.task)
    from distill_bench.data import prepared

    prepared.prepare(
        dataset,
        data_dir,
        lambda text: print(text, flush=True),
        Path(values.manual_dir).expanduser() if values.manual_dir else None,
    )
    return OK


def _show(data_dir: Path) -> int:
    from distill_bench.data import fashion_mnist, prepared

    if fashion_mnist.is_here(data_dir):
        state = "here"
    else:
        state = f"not here: python -m distill_bench.data prepare --task={FASHION}"
    print(f"{FASHION:12}  {state}")
    for task, dataset in datasets.CATALOGUE.items():
        if prepared.is_packed(dataset, data_dir):
            state = f"packed in {prepared.folder(dataset, data_dir)}"
        elif source := prepared.reader(dataset).find(dataset, data_dir):
            made = "it is" if dataset.tfrecords else "TFDS has made it"
            state = f"not packed, but {made} in {source}"
        else:
            state = f"not prepared: {datasets.prepare_command(dataset, data_dir)}"
        print(f"{task:12}  {state}")
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv))

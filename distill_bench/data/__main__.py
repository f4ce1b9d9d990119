"""The command `python -m distill_bench.data`: prepares data sets, and tells which are prepared."""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from distill_bench.data import datasets
from distill_bench.errors import UserError, suggestion

USAGE = """Prepares the data sets of TensorFlow Datasets for training, once, with network; tells, without a subcommand, which are prepared.

python -m distill_bench.data [--data_dir=DIR]
python -m distill_bench.data prepare --task=flowers102 [--data_dir=DIR] [--manual_dir=DIR]"""
PREPARE = "prepare"


def main(argv: list[str]) -> int:
    """Runs the command; the exit code is 0, 1 where a file cannot be read or written, 2 for what the user can mend."""
    # Values of their own: this module's flags have names that scripts define, too.
    values = flags.FlagValues()
    flags.DEFINE_string(
        "task",
        None,
        f"Which data set to prepare: {', '.join(datasets.CATALOGUE)}.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "The folder of all data sets. Default: $TFDS_DATA_DIR, else ~/tensorflow_datasets.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "manual_dir",
        None,
        "Where the archives lie that only you may download (imagenet2012). Default: downloads/manual in data_dir.",
        flag_values=values,
    )
    if any(argument in ("--help", "-h", "-help") for argument in argv[1:]):
        print(f"{USAGE}\n{values.get_help()}")
        return 0
    try:
        return _run(values(argv)[1:], values)
    except (flags.Error, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nInterrupted. The same command starts over with what TFDS has not made yet.",
            file=sys.stderr,
        )
        return 130


def _run(arguments: list[str], values: flags.FlagValues) -> int:
    data_dir = datasets.data_dir(values.data_dir)
    if not arguments:
        return _show(data_dir)
    if arguments != [PREPARE]:
        unknown = next((argument for argument in arguments if argument != PREPARE), arguments[-1])
        raise UserError(
            f"There is no subcommand {unknown!r}.{suggestion(unknown, [PREPARE])}\nSubcommands: {PREPARE}. See --help."
        )
    if values.task is None:
        raise UserError(f"Which data set? --task=NAME, one of {', '.join(datasets.CATALOGUE)}.")
    dataset = datasets.get(values.task)
    from distill_bench.data import prepared

    prepared.prepare(
        dataset,
        data_dir,
        lambda text: print(text, flush=True),
        Path(values.manual_dir).expanduser() if values.manual_dir else None,
    )
    return 0


def _show(data_dir: Path) -> int:
    from distill_bench.data import prepared, tfds_records

    for task, dataset in datasets.CATALOGUE.items():
        if prepared.is_packed(dataset, data_dir):
            state = f"packed in {prepared.folder(dataset, data_dir)}"
        elif source := tfds_records.find(dataset, data_dir):
            state = f"not packed, but TFDS has made it in {source}"
        else:
            state = f"not prepared: {datasets.prepare_command(dataset, data_dir)}"
        print(f"{task:12}  {state}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

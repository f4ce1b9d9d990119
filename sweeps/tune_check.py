"""Checks how well an optimizer was tuned: changes one hyperparameter of its winners at a time.

python sweeps/tune_check.py leaderboard/digits/adamw.json
python sweeps/tune_check.py leaderboard/digits/adamw.json --horizons=250,1000 --seeds=5
python sweeps/tune_check.py runs/digits/my_opt-0123456789ab
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: Python put this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench.command import Flags
from distill_bench.errors import UserError
from sweeps import cli

if TYPE_CHECKING:
    from sweeps.results.one_factor import Finding, Gain

FLAGS = Flags()
WORTH_A_WARNING = 0.005  # of the loss: about 1 % of speed-up

with FLAGS.group("What to check"):
    flags.DEFINE_list("horizons", [], "Horizons to check. Default: all.", flag_values=FLAGS)
    flags.DEFINE_integer(
        "seeds",
        None,
        "Number of the winner's final seeds to use, 3 or more. Default: all.",
        lower_bound=3,
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "trust",
        False,
        "Run the code in the entry. Needed if its optimizer is not built in.",
        flag_values=FLAGS,
    )

with FLAGS.group("Output"):
    flags.DEFINE_string(
        "outdir",
        "runs/tune_check",
        "Folder of the runs. The same command continues what is there.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "record",
        True,
        "Write the check beside the entry, for the leaderboard to show.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "cache",
        "~/.cache/distill-bench",
        "Folder that keeps compiled programs between runs; empty for none.",
        flag_values=FLAGS,
    )


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise UserError(
            "Name one entry or study, such as leaderboard/digits/shampoo.json; "
            f"got {' '.join(arguments) or 'none'}."
        )
    if not all(horizon.isdecimal() for horizon in FLAGS.horizons):
        raise UserError(
            f"--horizons={','.join(FLAGS.horizons)}: horizons must be whole numbers of steps, "
            "such as --horizons=250,500."
        )
    cache = str(Path(FLAGS.cache).expanduser()) if FLAGS.cache else None
    cli.set_up_jax(cache)
    from sweeps.board import check_tuning, tune_checks
    from sweeps.execution.progress import progress
    from sweeps.execution.resources import Resources
    from sweeps.planning.environment import environment
    from sweeps.results.one_factor import analyse

    root = Path(FLAGS.outdir).absolute()  # an optimizer may change the current folder
    with check_tuning.opened(Path(arguments[0]), FLAGS.trust) as (subject, entry):
        name = subject.study.optimizer
        if not subject.study.space:
            print(f"{name} searches no hyperparameter, so there is nothing to check.")
            return cli.OK
        with progress() as display:
            horizons = [int(horizon) for horizon in FLAGS.horizons]
            resources = Resources(cache=cache)
            factors = check_tuning.run(subject, horizons, FLAGS.seeds, root, display, resources)
    findings, largest = analyse(factors)
    _print(name, findings, largest)
    if FLAGS.record and entry:
        command = shlex.join(["python", "sweeps/tune_check.py", *sys.argv[1:]])
        made = tune_checks.make(entry, findings, largest, command, environment())
        print(f"Written to {os.path.relpath(tune_checks.record(entry, made))}")
    elif FLAGS.record:
        print("Not recorded: only an entry on the leaderboard has a place for it.")
    return cli.OK


def _print(name: str, findings: Sequence[Finding], largest: Gain | None) -> None:
    """Prints a row for each hyperparameter, what the check found, and warnings."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    table = Table(
        title=f"{name}: gain of one hyperparameter changed at a time, % of loss",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for title in ("steps", "hyperparameter", "down", "up", "best up to a neighbour"):
        table.add_column(title, justify="left" if title == "hyperparameter" else "right")
    for finding in findings:
        factor, shown = finding.factor, {"down": "-", "up": "-"}
        for arm, gain in zip(factor.arms, finding.neighbours, strict=True):
            value = arm.neighbour.value
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            shown[arm.neighbour.side] = f"{text}: {gain.percent if gain else 'far worse or failed'}"
        best = finding.best.percent if finding.best else "-"
        cells = [str(factor.horizon), factor.name, shown["down"], shown["up"], best]
        table.add_row(*map(Text, cells))  # Text, not markup: names come from other people's files
    console.print(table)
    if largest is None:
        console.print(Text("No neighbour could be compared with its winner."))
        return
    console.print(Text(f"Largest gain of all, by seeds that did not choose it: {largest.percent}"))
    for finding in findings:
        gain = finding.best
        if gain and gain.low > 0 and gain.value > WORTH_A_WARNING:
            console.print(
                Text(
                    f"Warning: another {finding.factor.name} at {finding.factor.horizon} steps "
                    f"gains {gain.percent}: search more, or around it."
                )
            )


def script() -> None:
    cli.run(main, FLAGS, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    script()

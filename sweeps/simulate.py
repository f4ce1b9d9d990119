"""Simulates the whole protocol, to check what the leaderboard claims about itself.

python sweeps/simulate.py
python sweeps/simulate.py --quick --format=json
python sweeps/simulate.py --outdir=runs --trials=48 --bank=searches
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: Python put this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: more are slower

from absl import flags

from distill_bench.command import Flags
from distill_bench.errors import UserError
from sweeps import cli

if TYPE_CHECKING:
    from sweeps.simulation.surfaces import Trials

FLAGS = Flags()
QUICK = {"trials": 48, "boards": 20, "replicates": 24, "draws": 1}
QUICK_FIT = 150  # trials to which --quick fits length scales

with FLAGS.group("What to simulate"):
    flags.DEFINE_integer(
        "trials",
        96,
        "Tuning trials of an entrant at the shortest rung. The baseline has four times as many.",
        lower_bound=3,
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "proposals",
        True,
        "Let a surface propose some of the points of a search; without, points are only promoted.",
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "boards", 1000, "Boards of each sort to draw.", lower_bound=1, flag_values=FLAGS
    )
    flags.DEFINE_integer(
        "replicates",
        48,
        "Searches of an entrant on each surface. The baseline makes a quarter as many.",
        lower_bound=2,
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "draws", 4, "Rough surfaces for each optimizer.", lower_bound=1, flag_values=FLAGS
    )
    flags.DEFINE_integer("seed", 0, "Seed of everything random.", lower_bound=0, flag_values=FLAGS)
    flags.DEFINE_bool(
        "quick",
        False,
        "A small simulation, whose figures are rough: "
        + ", ".join(f"--{name}={value}" for name, value in QUICK.items())
        + " unless given, and the surfaces of the baseline only.",
        flag_values=FLAGS,
    )

with FLAGS.group("Where surfaces come from"):
    flags.DEFINE_string("task", "digits", "Task of the trials.", flag_values=FLAGS)
    flags.DEFINE_string(
        "entries",
        None,
        "Folder of the leaderboard's entries. Default: leaderboard/ of this project.",
        flag_values=FLAGS,
    )
    flags.DEFINE_spaceseplist(
        "outdir",
        [],
        "Use the tuning trials of the runs in these folders instead.",
        comma_compat=True,
        flag_values=FLAGS,
    )

with FLAGS.group("Output"):
    flags.DEFINE_string(
        "bank",
        None,
        "Folder that keeps the searches, so that the same command continues from there.",
        flag_values=FLAGS,
    )
    flags.DEFINE_enum(
        "format", "table", ["table", "json"], "how to print the figures.", flag_values=FLAGS
    )


def main() -> int:
    from sweeps.board import entries
    from sweeps.simulation import protocol, report, surfaces

    chosen = {name: _value(name) for name in QUICK}
    setting = protocol.Setting(
        **chosen,
        proposals=FLAGS.proposals,
        seed=FLAGS.seed,
        most=QUICK_FIT if FLAGS.quick else surfaces.MOST,
    )
    folder = _folder(FLAGS.bank)
    sources = _sources()
    baseline = next((one for one in sources if one.optimizer == entries.BASELINE), sources[0])
    if FLAGS.quick:
        sources = [baseline]
    outcomes = protocol.simulate(sources, baseline, setting, folder)
    figures = report.plain(
        outcomes,
        {
            "trial_steps": setting.entrant.steps(baseline.space, report.RUNGS),
            **chosen,
            "proposals": FLAGS.proposals,
            "seed": FLAGS.seed,
            "optimizers": [one.optimizer for one in sources],
        },
    )
    print(json.dumps(figures, indent=1) if FLAGS.format == "json" else report.table(figures))
    return cli.OK


def _value(name: str) -> int:
    """The flag's value; that of --quick, if it was asked for and the flag was not given."""
    given = FLAGS[name]
    return QUICK[name] if FLAGS.quick and not given.present else int(given.value or 0)


def _folder(path: str | None) -> Path | None:
    from sweeps.results import outdir

    return outdir.open_folder(path, "bank") if path else None


def _sources() -> list[Trials]:
    """The tuning trials of each optimizer, ordered by name."""
    from sweeps.board import entries
    from sweeps.results import store
    from sweeps.simulation.surfaces import trials_of

    if FLAGS.outdir and FLAGS.entries:
        raise UserError("--entries and --outdir each say where surfaces come from: leave one out.")
    if FLAGS.outdir:
        where = f"--outdir={' '.join(FLAGS.outdir)}"
        loaded = [one for path in FLAGS.outdir for one in store.load(Path(path), [FLAGS.task])]
        found = [trials_of(one.study, one.results) for one in store.merge(loaded)]
    else:
        folder = Path(FLAGS.entries) if FLAGS.entries else entries.FOLDER
        where = f"--entries={folder}"
        if not folder.is_dir():
            raise UserError(
                f"{where} is not a folder: name one that holds <task>/<optimizer>.json files."
            )
        read, warnings = entries.load(folder, [FLAGS.task])
        for warning in warnings:
            print(f"Warning: {warning}", file=sys.stderr)
        found = [trials_of(one.study, one.results) for one in read]
    if not (known := sorted((one for one in found if one), key=lambda one: one.optimizer)):
        raise UserError(
            f"{where} has no study of the task {FLAGS.task!r} with enough tuning trials: a surface "
            "needs five for each hyperparameter and five more. Name other runs with --outdir."
        )
    return known


def script() -> None:
    cli.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    script()

"""Tests what the project claims about its tasks, and writes docs/evidence.md.

python sweeps/evidence.py --claim=patience,quarter
python sweeps/evidence.py --claim=modes --outdir=runs/evidence
python sweeps/evidence.py --quick
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if not __package__:  # run as a file: Python put this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench.command import Flags
from distill_bench.errors import UserError, suggestion
from sweeps import cli

ROOT = Path(__file__).resolve().parent.parent
FLAGS = Flags()

with FLAGS.group("What to test"):
    flags.DEFINE_list(
        "claim",
        [],
        "Test these claims only. From the leaderboards' entries, in seconds: patience, quarter, "
        "validity, length, tasks, published, or boards for all of these. By training, in up to an "
        "hour each: repetition, modes, mixup, images, start, overfitting, width, batch. "
        "Default: all.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "quick",
        False,
        "Train as little as shows that all of it runs; the figures mean nothing, and are printed "
        "only.",
        flag_values=FLAGS,
    )

with FLAGS.group("Folders and files"):
    flags.DEFINE_string(
        "outdir",
        "runs/evidence",
        "Folder for the runs; what it holds is not run again.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "write",
        str(ROOT / "docs"),
        "Folder for evidence.md and, in evidence/, a file for each claim.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "readme",
        None,
        "Also write the findings that README quotes between this file's marks.",
        flag_values=FLAGS,
    )


def main() -> int:
    from distill_bench.files import write_atomically
    from distill_bench.machine import WEIGHTS_VARIABLE
    from distill_bench.tasks import catalogue
    from sweeps import interface
    from sweeps.board import entries, marked
    from sweeps.claims import experiments, finding, of_boards, of_runs

    known = [*of_boards.CLAIMS, *of_runs.EXPERIMENTS]
    wanted = FLAGS.claim or known
    if "boards" in wanted:
        wanted = [*of_boards.CLAIMS, *(name for name in wanted if name != "boards")]
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(
            f"--claim={','.join(unknown)} is not a claim: the claims are {', '.join(known)}."
            f"{suggestion(unknown[0], known)}"
        )
    folder = Path(FLAGS.write)
    if not folder.is_dir():
        raise UserError(f"--write={folder} is not a folder: name one that exists.")
    if FLAGS.readme and not Path(FLAGS.readme).is_file():
        raise UserError(f"--readme={FLAGS.readme} is not a file: name the one with the marks.")
    boards = {task: found for task in catalogue.names() if (found := entries.load(names=[task])[0])}
    outdir = Path(FLAGS.outdir).expanduser().absolute()
    if FLAGS.quick:  # its runs must not be taken for those of a whole experiment
        outdir /= "quick"
    # Students that start others belong to these runs, not to the user's weights.
    os.environ[WEIGHTS_VARIABLE] = str(outdir / "weights")
    runs = experiments.Runs(interface.compare, outdir, outdir / "weights", FLAGS.quick)
    for name in known:
        if name not in wanted:
            continue
        board_claim = of_boards.CLAIMS.get(name)
        found = board_claim(boards) if board_claim else of_runs.EXPERIMENTS[name](runs)
        print(f"{found.name}: {found.verdict}. {found.claim} {found.found}", flush=True)
        if not FLAGS.quick:
            finding.write(folder / "evidence", found)
    if not FLAGS.quick:
        stored = finding.read(folder / "evidence")
        shown = [stored[name] for name in known if name in stored]
        write_atomically(folder / "evidence.md", finding.markdown(shown))
        if FLAGS.readme:
            marked.replace(Path(FLAGS.readme), finding.BEGIN, finding.END, finding.quoted(stored))
    return cli.OK


def script() -> None:
    cli.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    script()

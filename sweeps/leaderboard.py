"""Shows the leaderboard, or a table of your own runs; adds entries.

python sweeps/leaderboard.py
python sweeps/leaderboard.py --html=leaderboard.html
python sweeps/leaderboard.py --outdir=runs --format=json
python sweeps/leaderboard.py --add=runs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: Python put this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench.command import Flags
from distill_bench.errors import UserError, suggestion
from sweeps import cli

if TYPE_CHECKING:
    from sweeps.results.store import Loaded

FLAGS = Flags()

with FLAGS.group("What to show"):
    flags.DEFINE_string(
        "entries",
        None,
        "Folder of the leaderboard's entries. Default: leaderboard/ of this project.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "task", None, "Show the leaderboard of this task only, such as fashion.", flag_values=FLAGS
    )
    flags.DEFINE_spaceseplist(
        "outdir",
        [],
        "Show the runs in these folders instead, merged; with --html or --figures, over the "
        "leaderboard. sweeps/run.py --outdir writes such folders.",
        comma_compat=True,
        flag_values=FLAGS,
    )
    flags.DEFINE_spaceseplist(
        "horizons",
        [],
        "With --outdir: show these rungs only, such as 250,500.",
        comma_compat=True,
        flag_values=FLAGS,
    )
    flags.DEFINE_spaceseplist(
        "reference",
        [],
        "With --outdir: entries of the leaderboard to show beside the runs, such as muon,soap.",
        comma_compat=True,
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "diff",
        None,
        "With --outdir: show what changed in the source of this optimizer from version to version.",
        flag_values=FLAGS,
    )
    flags.DEFINE_enum(
        "format",
        "table",
        ["table", "json", "markdown", "csv", "latex", "parquet"],
        "how to print it, or what --tables writes.",
        flag_values=FLAGS,
    )

with FLAGS.group("What to write instead"):
    flags.DEFINE_string(
        "html", None, "Write the leaderboard to this file, as a web page.", flag_values=FLAGS
    )
    flags.DEFINE_string(
        "figures",
        None,
        "Write the leaderboard's figures into this folder, as SVG and PDF.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "tables",
        None,
        "Write rows, curves and trials into this folder, as --format=csv or parquet; with latex, "
        "the rows.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "readme",
        None,
        "Write the leaderboard between the markers in this file.",
        flag_values=FLAGS,
    )
    flags.DEFINE_spaceseplist(
        "add",
        [],
        "Write an entry for each finished study in these folders. A folder holds one study, or "
        "all that sweeps/run.py wrote.",
        comma_compat=True,
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "replace",
        False,
        "With --add: also replace entries of the same name that other code made.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "cost",
        True,
        "With --add: also measure what a step of each costs, against the baseline's.",
        flag_values=FLAGS,
    )
    flags.DEFINE_spaceseplist(
        "costs",
        [],
        "Measure again here what a step of these entries costs, such as muon,soap or all, and "
        "write it into them. Nothing else should run meanwhile.",
        comma_compat=True,
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "cache",
        "~/.cache/distill-bench",
        "Folder that keeps compiled programs and outcomes of checks between runs; empty for none.",
        flag_values=FLAGS,
    )


def main() -> int:
    cache = str(Path(FLAGS.cache).expanduser()) if FLAGS.cache else None
    if FLAGS.costs:
        from sweeps.board import entry_costs

        _check_places(_folder())
        cli.set_up_jax(cache)
        done = entry_costs.measure_again(_folder(), FLAGS.task, FLAGS.costs)
        return cli.OK if done else cli.FAILED
    if FLAGS.add:
        from sweeps.board import add_entries

        paths = [Path(path) for path in FLAGS.add]
        added = add_entries.add(paths, _folder(), FLAGS.replace, FLAGS.cost, cache)
        return cli.OK if added else cli.FAILED
    if FLAGS.diff:
        return _show_diff()
    if FLAGS.tables or FLAGS.format in _FLAT:
        return _show_flat()
    if FLAGS.outdir and not (FLAGS.html or FLAGS.figures):
        return _show_runs()
    if FLAGS.horizons and not FLAGS.outdir:
        raise UserError("--horizons chooses rungs of your own runs: add --outdir=runs.")
    if FLAGS.reference:
        raise UserError(
            "--reference sets entries beside the table of your own runs: add --outdir=runs. "
            "The page and the figures show all entries."
        )
    return _show_board()


_FLAT = ("csv", "latex", "parquet")


def _show_flat() -> int:
    """Prints or writes the board, or one's own runs, for other programs."""
    from sweeps.board import entries, formats, run_rows, tidy

    if FLAGS.html or FLAGS.figures or FLAGS.readme:
        raise UserError(
            "--tables, --html, --figures and --readme each write one thing: choose one."
        )
    format = FLAGS.format if FLAGS.format in _FLAT else "csv"
    if format == "parquet" and not FLAGS.tables:
        raise UserError("--format=parquet cannot be printed: add --tables=DIR.")
    if FLAGS.outdir:
        studies, warnings = _own_studies(), []
    else:
        folder = _folder()
        _check_places(folder)
        found, warnings = entries.load(folder, [FLAGS.task] if FLAGS.task else None)
        studies = [entry.loaded() for entry in found]
    table = run_rows.collect(studies, _chosen_horizons(studies), reference=FLAGS.reference)
    if FLAGS.tables:
        for path in formats.write(table, Path(FLAGS.tables), format):
            print(path)
    elif format == "latex":
        print(formats.latex(table), end="")
    else:
        print(formats.as_csv(tidy.tables(table)["rows"]), end="")
    for warning in (*warnings, *table.warnings):
        print(f"Warning: {warning}", file=sys.stderr)
    return cli.FAILED if warnings or any(one.problems for one in studies) else cli.OK


def _show_board() -> int:
    """Shows the leaderboard, with one's own runs over it if --outdir is given."""
    from sweeps.board import build, entries, markdown, tables

    folder = _folder()
    _check_places(folder)
    found, warnings = entries.load(folder, [FLAGS.task] if FLAGS.task else None)
    left_out: list[str] = []
    if FLAGS.outdir:
        from sweeps.board import provisional

        studies = _own_studies()
        own, left_out = provisional.beside(found, studies, _chosen_horizons(studies))
        found += own
    if FLAGS.task and not found:
        from distill_bench.tasks import catalogue

        known = catalogue.names()
        near = "" if FLAGS.task in known else suggestion(FLAGS.task, known)
        raise UserError(f"--task={FLAGS.task} has no entry.{near}")
    board = build.make(found, [*warnings, *left_out], entries.notice(folder))
    if FLAGS.html:
        from sweeps.board import page

        _write(FLAGS.html, page.render(board))
    elif FLAGS.figures:
        from sweeps.board import plotting

        for path in plotting.write(board, Path(FLAGS.figures)):
            print(path)
    elif FLAGS.readme:
        markdown.update(Path(FLAGS.readme), board)
    elif FLAGS.format == "json":
        print(json.dumps(board, indent=1, allow_nan=False))
    elif FLAGS.format == "markdown":
        print(markdown.render(board))
    else:
        tables.print_board(board)
    for warning in left_out:
        print(f"Warning: {warning}", file=sys.stderr)
    return cli.FAILED if len(board["warnings"]) > len(left_out) else cli.OK


def _folder() -> Path:
    """The folder of the leaderboard's entries."""
    from sweeps.board import entries

    return Path(FLAGS.entries) if FLAGS.entries else entries.FOLDER


def _check_places(folder: Path) -> None:
    """Refuses what cannot be read or written, before the work."""
    if not folder.is_dir():
        raise UserError(
            f"--entries={folder} is not a folder: "
            "name one that holds <task>/<optimizer>.json files."
        )
    if FLAGS.readme and not Path(FLAGS.readme).is_file():
        raise UserError(
            f"--readme={FLAGS.readme} is not a file: name the one that contains the leaderboard."
        )
    if FLAGS.html and not Path(FLAGS.html).absolute().parent.is_dir():
        raise UserError(
            f"--html={FLAGS.html} cannot be written: name a file in a folder that exists."
        )


def _own_studies() -> list[Loaded]:
    """The studies in the folders given with --outdir; those of --task if it is given."""
    from sweeps.results import store

    tasks = [FLAGS.task] if FLAGS.task else None
    return store.merge([x for outdir in FLAGS.outdir for x in store.load(Path(outdir), tasks)])


def _show_diff() -> int:
    from sweeps.board import source_diff

    if not FLAGS.outdir:
        raise UserError("--diff compares versions of your own optimizer: add --outdir=runs.")
    print(source_diff.describe(_own_studies(), FLAGS.diff))
    return cli.OK


def _show_runs() -> int:
    from sweeps.board import run_rows, run_table

    if FLAGS.task:
        raise UserError("--task chooses a leaderboard: leave it out with --outdir.")
    if FLAGS.readme or FLAGS.format == "markdown":
        raise UserError(
            "--outdir shows your runs as a table, as JSON, or on the page (--html) and in the "
            "figures (--figures). --readme and --format=markdown show the leaderboard: leave one "
            "of them out."
        )
    studies = _own_studies()
    horizons = _chosen_horizons(studies)
    table = run_rows.collect(studies, horizons, reference=FLAGS.reference)
    if FLAGS.format == "json":
        print(run_table.as_json(table))
        for warning in table.warnings:
            print(f"Warning: {warning}", file=sys.stderr)
    else:
        run_table.print_table(table, studies, horizons)
    return cli.FAILED if any(loaded.problems for loaded in studies) else cli.OK


def _chosen_horizons(studies: list[Loaded]) -> set[int] | None:
    """The rungs given with --horizons; None for all."""
    if not FLAGS.horizons:
        return None
    present = sorted({result.trial.horizon for loaded in studies for result in loaded.results})
    chosen = {horizon for horizon in present if str(horizon) in FLAGS.horizons}
    if unknown := [text for text in FLAGS.horizons if text not in map(str, present)]:
        raise UserError(
            f"--horizons={','.join(unknown)}: these runs have no such rung. "
            f"Theirs are {', '.join(map(str, present))}."
        )
    return chosen


def _write(path: str, content: str) -> None:
    from distill_bench.files import write_atomically

    try:
        write_atomically(Path(path), content)
    except OSError as error:
        raise UserError(f"--html={path} cannot be written: {error.strerror}.") from None


def script() -> None:
    cli.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    script()

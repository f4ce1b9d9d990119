"""Shows the leaderboard, or everything in a store of one's own runs; writes entries.

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

if not __package__:  # run as a file, Python put this folder on the path in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench.errors import UserError
from sweeps import cli

if TYPE_CHECKING:
    from sweeps.board.entries import Cost
    from sweeps.results.store import Loaded

FLAGS = flags.FLAGS
flags.DEFINE_spaceseplist(
    "outdir",
    [],
    "Stores, as sweeps/run.py --outdir wrote them: show their runs, merged, in place of the leaderboard.",
    comma_compat=True,
)
flags.DEFINE_string(
    "entries",
    None,
    "The folder of the leaderboard's entries. Default: leaderboard/ of this project.",
)
flags.DEFINE_enum("format", "table", ["table", "json", "markdown"], "How to print it.")
flags.DEFINE_string("html", None, "Write the leaderboard as a web page, a single file, and stop.")
flags.DEFINE_string("readme", None, "Put the leaderboard between this file's markers, and stop.")
flags.DEFINE_spaceseplist(
    "add",
    [],
    "Write entries of these studies (folders in a store, or whole stores), and stop.",
    comma_compat=True,
)
flags.DEFINE_bool(
    "cost", True, "With --add, also measure what each update rule costs beside the baseline's."
)
flags.DEFINE_string(
    "cache",
    "~/.cache/distill-bench",
    "Where compiled programs are kept between runs; empty for nowhere.",
)


def main() -> int:
    if FLAGS.add:
        return _add()
    if FLAGS.outdir:
        return _show_stores()
    from sweeps.board import build, entries, tables

    folder = Path(FLAGS.entries) if FLAGS.entries else entries.FOLDER
    if not folder.is_dir():
        raise UserError(
            f"--entries={folder} is no folder: name one that holds <task>/<optimizer>.json files."
        )
    if FLAGS.readme and not Path(FLAGS.readme).is_file():
        raise UserError(
            f"--readme={FLAGS.readme} is no file: name the one that the leaderboard stands in."
        )
    if FLAGS.html and not Path(FLAGS.html).absolute().parent.is_dir():
        raise UserError(
            f"--html={FLAGS.html} cannot be written: name a file in a folder that exists."
        )
    made = build.make(*entries.load(folder))
    if FLAGS.html:
        from sweeps.board import page

        _write(FLAGS.html, page.render(made))
    elif FLAGS.readme:
        tables.update(Path(FLAGS.readme), made)
    elif FLAGS.format == "json":
        print(json.dumps(made, indent=1, allow_nan=False))
    elif FLAGS.format == "markdown":
        print(tables.markdown(made))
    else:
        tables.print_board(made)
    return cli.FAILED if made["warnings"] else cli.OK


def _show_stores() -> int:
    from sweeps.board import run_table
    from sweeps.results import store

    if FLAGS.html or FLAGS.readme or FLAGS.format == "markdown":
        raise UserError(
            "--outdir shows a store as a table or as JSON; --html, --readme and --format=markdown are of the leaderboard: leave one of them out."
        )
    studies = store.merge(
        [loaded for outdir in FLAGS.outdir for loaded in store.load(Path(outdir))]
    )
    shown, warnings = run_table.collect(studies)
    if FLAGS.format == "json":
        print(run_table.as_json(shown))
        print(
            "\n".join(f"Warning: {warning}" for warning in warnings),
            end="\n" * bool(warnings),
            file=sys.stderr,
        )
    else:
        run_table.print_table(shown, warnings)
        run_table.print_certificates(studies)
    return cli.FAILED if any(loaded.problems for loaded in studies) else cli.OK


def _add() -> int:
    """Writes an entry for each study that may be one; says why not of the others, which is a failure."""
    from sweeps.board import entries, write_entry
    from sweeps.results import store

    folder = Path(FLAGS.entries) if FLAGS.entries else entries.FOLDER
    studies = store.merge([loaded for path in FLAGS.add for loaded in _studies(Path(path))])
    named: dict[tuple[str, str], list[Loaded]] = {}
    for loaded in studies:
        named.setdefault((loaded.study.task, loaded.study.optimizer), []).append(loaded)
    refused = False
    for (_, name), versions in named.items():
        try:
            if len(versions) > 1:
                folders = "\n".join(
                    f"- {one.folder}, source {one.study.source_sha256[:12]}, task {one.study.fingerprint}"
                    for one in versions
                )
                raise UserError(
                    f"There are {len(versions)} studies of {name}, with different tasks, sources, spaces or versions: name one with --add.\n{folders}"
                )
            write_entry.check(versions[0])
            print(
                write_entry.write(versions[0], _cost(versions[0]) if FLAGS.cost else None, folder)
            )
        except UserError as error:
            refused = True
            print(error, file=sys.stderr)
    return cli.FAILED if refused or not named else cli.OK


def _studies(path: Path) -> list[Loaded]:
    from sweeps.results import store

    if (path / "study.json").is_file():
        return [store.load_study(path)]
    found = store.load(path) if path.is_dir() else []
    if not found:
        raise UserError(
            f"--add={path} holds no study: name a folder that sweeps/run.py --outdir wrote, or one study's folder in it."
        )
    return found


def _cost(loaded: Loaded) -> Cost:
    """Of the update rule as it is here, which must be the one that ran."""
    cli.set_up_jax(str(Path(FLAGS.cache).expanduser()) if FLAGS.cache else None)
    from distill_bench.tasks import catalogue
    from sweeps.board import entries
    from sweeps.planning.plug_ins import resolve
    from sweeps.timing import update_cost

    rule, baseline = resolve(loaded.spec), resolve(entries.BASELINE)
    if rule.source_sha256 != loaded.study.source_sha256:
        raise UserError(
            f"{loaded.study.optimizer} has changed since it ran, so what it costs cannot be measured: run it again, or add it with --nocost."
        )
    found = update_cost.optimizer_cost(
        catalogue.get(loaded.study.task), rule.optimizer, baseline.optimizer
    )
    return entries.Cost(
        found["update_ms"],
        found["baseline_update_ms"],
        found["update_ratio"],
        found["state_bytes_per_parameter"],
    )


def _write(path: str, content: str) -> None:
    from sweeps.results.store import write_atomically

    try:
        write_atomically(Path(path), content)
    except OSError as error:
        raise UserError(f"--html={path} cannot be written: {error.strerror}.") from None


def script() -> None:
    cli.run(main, __doc__ or "")


if __name__ == "__main__":
    script()

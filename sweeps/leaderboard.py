"""Prints the table of everything in a store.

python sweeps/leaderboard.py --outdir=runs
python sweeps/leaderboard.py --outdir=runs --format=json
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file, Python put this folder on the path in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from sweeps import cli

FLAGS = flags.FLAGS
flags.DEFINE_spaceseplist("outdir", ["runs"], "The stores: what sweeps/run.py --outdir wrote; several are merged.", comma_compat=True)
flags.DEFINE_enum("format", "table", ["table", "json"], "How to print it.")
flags.DEFINE_string("add", None, "Write the entry of this optimizer's study under leaderboard/, and stop.")


def main() -> int:
    from distill_bench.errors import UserError
    from sweeps import entries, report, store

    studies = store.merge([loaded for outdir in FLAGS.outdir for loaded in store.load(Path(outdir))])
    if FLAGS.add:
        chosen = [loaded for loaded in studies if loaded.study.optimizer == FLAGS.add]
        if len(chosen) != 1:
            names = ", ".join(sorted({loaded.study.optimizer for loaded in studies})) or "nothing"
            raise UserError(f"--add={FLAGS.add} names {len(chosen)} studies in {', '.join(FLAGS.outdir)}, which holds {names}: it must name one.")
        print(entries.write_entry(chosen[0]))
        return cli.OK
    shown, warnings = report.collect(studies)
    if FLAGS.format == "json":
        print(report.as_json(shown))
        print("\n".join(f"Warning: {warning}" for warning in warnings), end="\n" * bool(warnings), file=sys.stderr)
    else:
        report.print_table(shown, warnings)
        report.print_certificates(studies)
    return cli.FAILED if any(loaded.problems for loaded in studies) else cli.OK


def script() -> None:
    cli.run(main, __doc__ or "")


if __name__ == "__main__":
    script()

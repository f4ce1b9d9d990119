"""Reruns a leaderboard entry and records whether its numbers are reproduced.

python sweeps/verify.py leaderboard/digits/shampoo.json
python sweeps/verify.py leaderboard/digits/shampoo.json --seeds=1
python sweeps/verify.py --restamp leaderboard/digits/*.json  (after the code was reworded or moved)
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: Python put this folder on the path, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench.command import Flags
from distill_bench.errors import UserError
from sweeps import cli

if TYPE_CHECKING:
    from distill_bench.training.events import Event
    from sweeps.board.rerun import Rung

FLAGS = Flags()

with FLAGS.group("What to rerun"):
    flags.DEFINE_integer(
        "seeds",
        None,
        "Number of recorded seeds to rerun at each horizon. Default: all.",
        lower_bound=1,
        flag_values=FLAGS,
    )
    flags.DEFINE_list("horizons", [], "Horizons to rerun. Default: all.", flag_values=FLAGS)
    flags.DEFINE_bool(
        "trust",
        False,
        "Run the code in the entry. Needed if its optimizer is not built in.",
        flag_values=FLAGS,
    )

with FLAGS.group("Re-stamping"):
    flags.DEFINE_bool(
        "restamp",
        False,
        "Give each entry the digest of the code here, if one seed at each horizon gives the same "
        "loss to the last digit.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "witness",
        "",
        "Folder of verdicts that the old code made on this machine, if it is not the one that "
        "recorded the entries.",
        flag_values=FLAGS,
    )

with FLAGS.group("Output"):
    flags.DEFINE_bool(
        "record",
        True,
        "Write the verdict beside the entry, for the leaderboard to show.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "cache",
        "~/.cache/distill-bench",
        "Folder that keeps compiled programs between runs; empty for none.",
        flag_values=FLAGS,
    )


def main(arguments: list[str]) -> int:
    if not arguments or (len(arguments) > 1 and not FLAGS.restamp):
        raise UserError(
            "Name one entry, such as leaderboard/digits/shampoo.json; "
            f"got {' '.join(arguments) or 'none'}."
        )
    if not all(horizon.isdecimal() for horizon in FLAGS.horizons):
        raise UserError(
            f"--horizons={','.join(FLAGS.horizons)}: horizons must be whole numbers of steps, "
            "such as --horizons=250,500."
        )
    if FLAGS.witness and not FLAGS.restamp:
        raise UserError("--witness goes with --restamp.")
    cli.set_up_jax(str(Path(FLAGS.cache).expanduser()) if FLAGS.cache else None)
    from sweeps.board import entries

    done = _restamp if FLAGS.restamp else _verify
    codes = []
    for path in map(Path, arguments):
        try:
            codes.append(done(path))
        except entries.BadEntry as error:
            raise UserError(f"{path} is not an entry: {error}.") from None
    return max(codes)


def _verify(path: Path) -> int:
    from sweeps.board import entries, rerun, verdicts

    entry = entries.read(path.absolute())
    with _progress() as watch:
        verdict, rungs = rerun.verify(
            entry, FLAGS.seeds, [int(h) for h in FLAGS.horizons], FLAGS.trust, watch
        )
    for rung in rungs:
        print(_describe(rung))
    detail = f"{verdict.detail[0].upper()}{verdict.detail[1:]}"
    print(f"{entry.study.optimizer}: {verdict.verdict}. {detail}.")
    if FLAGS.record:
        print(f"Written to {verdicts.record(entry, verdict)}")
    return cli.OK if verdict.verdict == "reproduced" else cli.FAILED


def _restamp(path: Path) -> int:
    from sweeps.board.restamp import restamp

    with _progress() as watch:
        outcome = restamp(path.absolute(), watch, Path(FLAGS.witness) if FLAGS.witness else None)
    what = "not re-stamped" if outcome.failed else "re-stamped" if outcome.written else "unchanged"
    print(f"{outcome.entry.study.optimizer}: {what}: {outcome.detail}.", flush=True)
    return cli.FAILED if outcome.failed else cli.OK


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Event, int], None]]:
    """A progress bar; yields the function that moves it on a training event."""
    from distill_bench.training.events import Compiled, Losses
    from sweeps.execution.progress import progress

    with progress() as display:

        def watch(event: Event, steps: int) -> None:
            if isinstance(event, Compiled):
                display.begin("rerun", steps)
            elif isinstance(event, Losses):
                display.advance(len(event.values))

        yield watch


def _describe(rung: Rung) -> str:
    mean = "diverged or crashed" if rung.mean is None else f"{rung.mean:.4f}"
    text = f"{rung.horizon:6} steps: rerun {mean}, expected {rung.low:.4f} to {rung.high:.4f}"
    if rung.identical:
        text += f", {rung.identical} of {len(rung.rerun)} identical to the last digit"
    return text


def script() -> None:
    cli.run(main, FLAGS, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    script()

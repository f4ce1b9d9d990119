"""Reruns a leaderboard entry and records whether its numbers are reproduced.

python sweeps/verify.py leaderboard/digits/shampoo.json
python sweeps/verify.py leaderboard/digits/shampoo.json --seeds=2 --tuning=8
python sweeps/verify.py --submission leaderboard/digits/my_opt.json  (what a pull request runs)
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
    from sweeps.board.draw import Drawn
    from sweeps.board.entries import Entry
    from sweeps.board.verdicts import Verdict

FLAGS = Flags()

with FLAGS.group("What to rerun"):
    flags.DEFINE_integer(
        "seeds",
        None,
        "Number of seeds to draw at each horizon and rerun as final runs. Default: all.",
        lower_bound=1,
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "tuning",
        4,
        "Number of tuning trials to draw, over all horizons, and rerun.",
        lower_bound=0,
        flag_values=FLAGS,
    )
    flags.DEFINE_integer(
        "draw",
        None,
        "Seed of the draw, to repeat one. Default: a fresh one.",
        lower_bound=0,
        upper_bound=2**32 - 1,
        flag_values=FLAGS,
    )
    flags.DEFINE_list("horizons", [], "Horizons to rerun. Default: all.", flag_values=FLAGS)
    flags.DEFINE_bool(
        "cost",
        True,
        "Measure the cost of a built-in optimizer's step again; nothing else should run meanwhile.",
        flag_values=FLAGS,
    )
    flags.DEFINE_bool(
        "trust",
        False,
        "Run the code in the entry. Needed if its optimizer is not built in.",
        flag_values=FLAGS,
    )

    flags.DEFINE_bool(
        "submission",
        False,
        "Say whether entries may join the leaderboard: check their form, code and conformance, "
        "then rerun two seeds and twelve tuning trials of each. Runs their code.",
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
        "Add the verdict to those beside the entry, for the leaderboard to show.",
        flag_values=FLAGS,
    )
    flags.DEFINE_string(
        "cache",
        "~/.cache/distill-bench",
        "Folder that keeps compiled programs between runs; empty for none.",
        flag_values=FLAGS,
    )


def main(arguments: list[str]) -> int:
    if not arguments or (len(arguments) > 1 and not (FLAGS.restamp or FLAGS.submission)):
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
    if FLAGS.restamp and FLAGS.submission:
        raise UserError("--restamp and --submission do different things: leave one of them out.")
    cli.set_up_jax(str(Path(FLAGS.cache).expanduser()) if FLAGS.cache else None)
    from sweeps.board import entries

    done = _restamp if FLAGS.restamp else _submission if FLAGS.submission else _verify
    codes = []
    for path in map(Path, arguments):
        try:
            codes.append(done(path))
        except entries.BadEntry as error:
            if FLAGS.submission:
                print(f"refused: {path}:\n- {error}")
                codes.append(cli.FAILED)
                continue
            raise UserError(f"{path} is not an entry: {error}.") from None
    return max(codes)


def _verify(path: Path) -> int:
    from sweeps.board import entries, rerun, verdicts
    from sweeps.board.draw import Request

    entry = entries.read(path.absolute())
    request = Request(FLAGS.seeds, FLAGS.tuning, [int(h) for h in FLAGS.horizons], FLAGS.draw)
    with _progress() as watch:
        outcome = rerun.verify(entry, request, FLAGS.trust, watch, FLAGS.cost)
    if outcome.drawn:
        print(_describe(entry, outcome.drawn))
    for line in outcome.lines:
        print(line)
    verdict, kept = outcome.verdict, verdicts.of(entry)
    print(f"{entry.study.optimizer}: {_sentence(verdict)}")
    if FLAGS.record and kept and kept.runs and not outcome.confirms:
        print("Nothing was rerun, so that the verdict beside the entry stays as it is.")
    elif FLAGS.record:
        merged = verdicts.record(entry, verdict)
        print(f"Written to {verdicts.path_of(entry)}")
        if (merged.verdict, merged.detail) != (verdict.verdict, verdict.detail):
            print(f"With earlier reruns of this entry: {_sentence(merged)}")
        verdict = merged
    return cli.OK if verdict.verdict == outcome.verdict.verdict == "reproduced" else cli.FAILED


def _submission(path: Path) -> int:
    """Prints "accepted" or "refused" with every reason."""
    from sweeps.board import entries, rerun, submission

    entry = entries.read(path.absolute())
    name = f"{entry.study.optimizer} on {entry.study.task}"
    board, _ = entries.load(entry.path.parent.parent, [entry.study.task])
    found = submission.objections(entry, board) or submission.conformance(entry)
    if not found:
        with _progress() as watch:
            request = submission.request(FLAGS.draw)
            outcome = rerun.verify(entry, request, True, watch, measures_cost=False)
        for line in [*([_describe(entry, outcome.drawn)] if outcome.drawn else []), *outcome.lines]:
            print(line)
        if outcome.verdict.verdict == "reproduced":
            print(f"accepted: {name}. {_sentence(outcome.verdict)}")
            return cli.OK
        found = [outcome.verdict.detail]
    print("\n".join([f"refused: {name}:", *(f"- {reason}" for reason in found)]))
    return cli.FAILED


def _sentence(verdict: Verdict) -> str:
    return f"{verdict.verdict}. {verdict.detail[0].upper()}{verdict.detail[1:]}."


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


def _describe(entry: Entry, drawn: Drawn) -> str:
    """What was drawn, and how to draw it again."""
    from sweeps.board.draw import finals_of, trials_of
    from sweeps.results.summary import chosen

    finals = sum(len(finals_of(entry, h)) for h in entry.horizons)
    trials = sum(len(trials_of(entry, h)) for h in entry.horizons)
    best = [chosen(entry.results, h) for h in entry.horizons]
    winners = sum(any(trial is one for one in best) for _, trial in drawn.tuning)
    return (
        f"Drawn with --draw={drawn.seed}: {len(drawn.finals)} of {finals} final runs, "
        f"{len(drawn.tuning)} of {trials} tuning trials (winners of a horizon: {winners})."
    )


def script() -> None:
    cli.run(main, FLAGS, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    script()

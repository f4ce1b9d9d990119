"""Reruns a leaderboard entry and says whether its numbers come out again; keeps the verdict beside the entry.

python sweeps/verify.py leaderboard/digits/shampoo.json
python sweeps/verify.py leaderboard/digits/shampoo.json --seeds=1
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # run as a file, Python put this folder on the path in place of the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from absl import flags

from distill_bench.errors import UserError
from sweeps import cli

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "seeds",
    None,
    "How many of the recorded seeds to rerun at each horizon. Default: all.",
    lower_bound=1,
)
flags.DEFINE_list("horizons", [], "Horizons to rerun. Default: all.")
flags.DEFINE_bool(
    "trust", False, "Run the code that the entry carries, where its optimizer is not built in."
)
flags.DEFINE_bool(
    "record", True, "Keep the verdict beside the entry, where the leaderboard shows it."
)
flags.DEFINE_string(
    "cache",
    "~/.cache/distill-bench",
    "Where compiled programs are kept between runs; empty for nowhere.",
)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise UserError(
            f"Name one entry, such as leaderboard/digits/shampoo.json; got {' '.join(arguments) or 'none'}."
        )
    if not all(horizon.isdecimal() for horizon in FLAGS.horizons):
        raise UserError(
            f"--horizons={','.join(FLAGS.horizons)} are no whole numbers of steps: write --horizons=250,500."
        )
    cli.set_up_jax(str(Path(FLAGS.cache).expanduser()) if FLAGS.cache else None)
    from distill_bench.training.events import Compiled, Losses
    from sweeps.board import entries, rerun, verdicts
    from sweeps.execution.progress import progress

    path = Path(arguments[0])
    try:
        entry = entries.read(path.absolute())
    except entries.BadEntry as error:
        raise UserError(f"{path} is no entry: {error}.") from None
    with progress() as display:

        def watch(event, steps: int) -> None:
            if isinstance(event, Compiled):
                display.begin("rerun", steps)
            elif isinstance(event, Losses):
                display.advance(len(event.values))

        verdict, rungs = rerun.verify(
            entry, FLAGS.seeds, [int(h) for h in FLAGS.horizons], FLAGS.trust, watch
        )
    for rung in rungs:
        mean = f"{rung.mean:.4f}" if rung.mean is not None else "did not end well"
        same = (
            f", {rung.identical} of {len(rung.rerun)} identical to the last digit"
            if rung.identical
            else ""
        )
        print(
            f"{rung.horizon:6} steps: rerun {mean}, expected {rung.low:.4f} to {rung.high:.4f}{same}"
        )
    print(
        f"{entry.study.optimizer}: {verdict.verdict}. {verdict.detail[0].upper()}{verdict.detail[1:]}."
    )
    if FLAGS.record:
        print(f"Kept in {verdicts.record(entry, verdict)}")
    return cli.OK if verdict.verdict == "reproduced" else cli.FAILED


def script() -> None:
    cli.run(main, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    script()

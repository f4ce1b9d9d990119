"""Claims about other scales of a task: wider students, larger batches."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from distill_bench.tasks.variation import Variation
from sweeps.board.entries import BASELINE
from sweeps.claims.experiments import Runs, Size, how
from sweeps.claims.finding import Finding, Verdict
from sweeps.claims.measures import compared
from sweeps.claims.named import NAMED
from sweeps.results import orders

RIVALS: tuple[str, ...] = tuple(NAMED["rivals"])


def _scales(
    runs: Runs, name: str, claim: str, what: str, variations: Mapping[int, Variation]
) -> Finding:
    """Optimizers at several scales of a task: the order at the first is set against the others, and
    speed-ups at the last are predicted from those before.

    All claims about scales share the runs of the task as it is.
    """
    size = Size((250, 1000), 24)
    chosen = RIVALS[:2] if runs.quick else RIVALS
    studies = {
        scale: runs("scales" if v == Variation() else name, chosen, size, v)
        for scale, v in variations.items()
    }
    by_scale = {scale: compared(found) for scale, found in studies.items()}
    scales, rivals = list(by_scale), [name for name in chosen if name != BASELINE]
    table = [
        ["optimizer", *(f"speed-up at {what} {scale}" for scale in scales), "slope", "predicted"]
    ]
    misses = []
    for rival in rivals:
        gains = [by_scale[scale].overall(rival) for scale in scales]
        if any(gain is None or gain.bound != "=" for gain in gains):
            table.append([rival, *(str(gain or "-") for gain in gains), "-", "-"])
            continue
        logs = [math.log(gain.value) for gain in gains if gain]
        slope, start = np.polyfit(np.log(scales[:-1]), logs[:-1], 1)
        predicted = math.exp(slope * math.log(scales[-1]) + start)
        misses.append(abs(math.log(predicted) - logs[-1]))
        table.append([rival, *map(str, gains), f"{slope:+.3f}", f"{predicted:.2f}x"])
    own = {scale: one.order() for scale, one in by_scale.items()}
    taus = {
        (a, b): orders.compare(own[a], own[b]).tau
        for i, a in enumerate(scales)
        for b in scales[i + 1 :]
    }
    kept = [orders.compare(own[scales[0]], own[other]) for other in scales[1:]]
    separated, same = sum(x.separated for x in kept), sum(x.kept for x in kept)
    shown = ", ".join(f"{tau:.2f} ({a} and {b})" for (a, b), tau in taus.items() if tau is not None)
    text = (
        f"{same} of {separated} pairs that differ significantly at {what} {scales[0]} stand in the "
        f"same order at {' and '.join(map(str, scales[1:]))}. Kendall's tau of {len(chosen)} "
        f"optimizers: {shown}."
    )
    if misses:
        text += (
            f" A line through the logarithms at {' and '.join(map(str, scales[:-1]))} misses the "
            f"speed-up at {scales[-1]} by {math.expm1(max(misses)):.0%} at most."
        )
    return Finding(
        name,
        claim,
        _verdict(same, separated),
        text,
        table,
        rule="every pair that differs significantly at the first stays in its order",
        how=how(runs, name, size, f"{', '.join(chosen)}, tuned at each {what}"),
        environment=studies[scales[0]][0].environment,
        seconds=runs.seconds("scales") + runs.seconds(name),
    )


def _verdict(same: int, separated: int) -> Verdict:
    """same: how many of the separated pairs stay in their order."""
    if not separated:
        return "not known yet"
    if same == separated:
        return "holds"
    return "holds in part" if same > separated / 2 else "does not hold here"


def width(runs: Runs) -> Finding:
    """Students of half, once and twice the width."""
    return _scales(
        runs,
        "width",
        "The order of optimizers holds as students grow.",
        "width",
        {8: Variation(width=8), 16: Variation(), 32: Variation(width=32)},
    )


def batch(runs: Runs) -> Finding:
    """A quarter, once and four times the batch."""
    return _scales(
        runs,
        "batch",
        "The order of optimizers holds at other batch sizes.",
        "batch",
        {32: Variation(batch_size=32), 128: Variation(), 512: Variation(batch_size=512)},
    )

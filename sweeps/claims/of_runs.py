"""Claims that need runs of their own, on digits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from distill_bench.files import write_atomically
from distill_bench.tasks.variation import Variation
from distill_bench.tasks.view_config import MIX, MODES
from sweeps.board.entries import BASELINE
from sweeps.claims.finding import Finding, Verdict
from sweeps.claims.measures import at_end, geometric, ratio
from sweeps.claims.named import NAMED
from sweeps.results import orders
from sweeps.results.comparison import Comparison
from sweeps.results.store import Loaded
from sweeps.results.summary import row_of

TASK, CLEAN, HELD_OUT, PROBE = "digits", "test_kl", "heldout_kl", "probe_loss"
RIVALS: tuple[str, ...] = tuple(NAMED["rivals"])
"""The optimizers of the experiments on widths and batches."""
TEACHING = [name for name, mode in MODES.items() if not mode.labels]


class Compare(Protocol):
    """`sweeps.compare`, as far as experiments need it."""

    def __call__(
        self,
        optimizers: Sequence[str],
        task: str,
        horizons: Sequence[int],
        *,
        trials: int,
        seeds: int,
        settings: Mapping[str, Any] | None,
        outdir: Path,
        variation: Variation,
    ) -> Any: ...


@dataclass(frozen=True)
class Runs:
    """Runs experiments, each in a folder of its own, where an interrupted one continues.

    Attributes:
      compare: trains and compares, see `sweeps.compare`.
      outdir: folder for all experiments.
      quick: the smallest experiments of the same form, whose figures mean nothing.
    """

    compare: Compare
    outdir: Path
    quick: bool = False

    def __call__(
        self,
        claim: str,
        optimizers: Sequence[str],
        size: Size,
        variation: Variation,
        settings: Mapping[str, Any] | None = None,
    ) -> list[Loaded]:
        """Optimizers on a variation of digits: one study for each, in the same order."""
        size = size.least() if self.quick else size
        began, folder = time.monotonic(), self.outdir / claim
        folder.mkdir(parents=True, exist_ok=True)
        try:
            results = self.compare(
                list(optimizers),
                TASK,
                list(size.horizons),
                trials=size.trials,
                seeds=size.seeds,
                settings=settings,
                outdir=folder,
                variation=variation,
            )
        finally:
            spent = self.seconds(claim) + time.monotonic() - began
            write_atomically(folder / "seconds.txt", f"{spent:.0f}\n")
        return results.studies

    def seconds(self, claim: str) -> float:
        """The time that a claim's experiments have taken, over all calls."""
        try:
            return float((self.outdir / claim / "seconds.txt").read_text())
        except (OSError, ValueError):
            return 0.0


@dataclass(frozen=True)
class Size:
    """Attributes: horizons; tuning trials at the shortest; final seeds."""

    horizons: tuple[int, ...]
    trials: int
    seeds: int = 3

    def least(self) -> Size:
        return Size(tuple(20 * 2**i for i in range(len(self.horizons))), 3, 2)


MODES_SIZE = Size((250, 1000, 4000), 16)


def _how(runs: Runs, claim: str, size: Size, what: str) -> str:
    note = " A quick run, whose figures mean nothing." if runs.quick else ""
    return (
        f"`python sweeps/evidence.py --claim={claim}`: {what}; {size.trials} tuning trials at "
        f"{size.horizons[0]:,} steps, half as many at twice the steps, {size.seeds} seeds.{note}"
    )


def modes(runs: Runs) -> Finding:
    """The paper's eight teaching modes, by the KL on clean test images."""
    size = MODES_SIZE
    found = {mode: runs("modes", [BASELINE], size, Variation(mode=mode))[0] for mode in TEACHING}
    horizons = sorted({r.trial.horizon for one in found.values() for r in one.results})
    clean = {
        mode: {h: at_end(one.results, h, CLEAN) for h in horizons} for mode, one in found.items()
    }
    table = [
        ["mode", *(f"clean-image KL at {h:,}" for h in horizons), f"over mix at {horizons[-1]:,}"]
    ]
    beaten, significant, misleading = 0, 0, []
    for mode in sorted(clean, key=lambda mode: geometric(clean[mode][horizons[-1]])):
        values = [f"{geometric(clean[mode][h]):.4f}" for h in horizons]
        last = ratio(clean[mode][horizons[-1]], clean[MIX][horizons[-1]])
        table.append([f"`{mode}`", *values, "-" if mode == MIX else str(last)])
        if mode != MIX:
            beaten += last.value > 1
            significant += last.low > 1
            if last.value > 1 > ratio(clean[mode][horizons[0]], clean[MIX][horizons[0]]).value:
                misleading.append(f"`{mode}`")
    rivals = len(clean) - 1
    verdict: Verdict = (
        "holds"
        if significant == rivals
        else "holds in part"
        if beaten > rivals / 2
        else "does not hold here"
    )
    mislead = (
        f"{', '.join(misleading)} {'is' if len(misleading) == 1 else 'are'} better at "
        f"{horizons[0]:,} steps and worse at {horizons[-1]:,}: short runs mislead."
        if misleading
        else f"No mode is better at {horizons[0]:,} steps and worse at {horizons[-1]:,}."
    )
    return Finding(
        "modes",
        "Showing teacher and student the same, mixed-up crops gives the best student.",
        verdict,
        f"At {horizons[-1]:,} steps, {beaten} of {rivals} other modes have a higher KL on clean "
        f"test images than mix, {significant} of them significantly. {mislead}",
        table,
        _how(runs, "modes", size, f"{BASELINE}, tuned for each mode on that mode's own probe loss"),
        found[MIX].environment,
        runs.seconds("modes"),
    )


def mixup(runs: Runs) -> Finding:
    """Whether mixed-up crops need a quarter of the steps that the same crops need unmixed."""
    size, plain = MODES_SIZE, "same/ic"
    found = {
        mode: runs("modes", [BASELINE], size, Variation(mode=mode))[0] for mode in (MIX, plain)
    }
    horizons = sorted({r.trial.horizon for r in found[MIX].results})
    table = [["metric", "steps", f"`{plain}`", "steps", "mix", "mix over it"]]
    ratios = []
    for metric, label in ((CLEAN, "clean-image KL"), (HELD_OUT, "held-out KL")):
        for short, long in pairwise(horizons):
            slow, fast = (
                at_end(found[mode].results, h, metric) for mode, h in ((plain, long), (MIX, short))
            )
            change = ratio(fast, slow)
            if metric == CLEAN:
                ratios.append(change)
            ends = (f"{long:,}", f"{geometric(slow):.4f}", f"{short:,}", f"{geometric(fast):.4f}")
            table.append([label, *ends, str(change)])
    verdict: Verdict = (
        "holds"
        if all(one.low <= 1 for one in ratios)
        else "holds in part"
        if any(one.low <= 1 for one in ratios)
        else "does not hold here"
    )
    return Finding(
        "mixup",
        "With mixup, a quarter of the steps are enough (Beyer et al. 2021, section 3.2).",
        verdict,
        f"With mixup, the KL on clean images after a quarter of the steps is "
        f"{' and '.join(map(str, ratios))} times that of the same crops without it; 1 or less was "
        "claimed. Held-out KL is measured on mixed-up views, which favours mix.",
        table,
        _how(runs, "mixup", size, f"{BASELINE}, tuned for both; the runs of the claim modes"),
        found[MIX].environment,
        runs.seconds("modes"),
    )


def overfitting(runs: Runs) -> Finding:
    """Very long runs: does the loss on unseen images keep falling?"""
    size = Size((4000, 32_000), 1)
    settings = dict(lr=0.03, weight_decay=0.02, b1=0.9, b2=0.95, warmup=0.1)
    chosen = (MIX, "fix/rs", "fix/cc")
    found = {
        mode: runs("overfitting", [BASELINE], size, Variation(mode=mode), settings)[0]
        for mode in chosen
    }
    horizons = sorted({r.trial.horizon for r in found[MIX].results})
    short, long = horizons[0], horizons[-1]
    table = [["mode", "metric", f"at {short:,}", f"at {long:,}", "longer over shorter"]]
    change = {}
    for mode, one in found.items():
        for metric, label in (
            (PROBE, "probe loss"),
            (HELD_OUT, "held-out KL"),
            (CLEAN, "clean KL"),
        ):
            a, b = (at_end(one.results, h, metric) for h in (short, long))
            change[mode, metric] = ratio(b, a)
            ends = (f"{geometric(x):.4f}" for x in (a, b))
            table.append([f"`{mode}`", label, *ends, str(change[mode, metric])])
    falls = [change[MIX, metric] for metric in (HELD_OUT, CLEAN)]
    verdict: Verdict = (
        "holds"
        if all(one.high < 1 for one in falls)
        else "holds in part"
        if all(one.value < 1 for one in falls)
        else "does not hold here"
    )
    others = "; ".join(
        f"`{mode}`: probe loss times {change[mode, PROBE]}, "
        f"held-out KL times {change[mode, HELD_OUT]}"
        for mode in chosen[1:]
    )
    return Finding(
        "overfitting",
        "With mixed-up crops, a student does not overfit however long it trains.",
        verdict,
        f"From {short:,} to {long:,} steps, mix's held-out KL changes by {falls[0]} and its KL on "
        f"clean images by {falls[1]}. Fixed views: {others}.",
        table,
        _how(
            runs,
            "overfitting",
            size,
            f"{BASELINE} with {', '.join(f'{k}={v:g}' for k, v in settings.items())}, not tuned",
        ),
        found[MIX].environment,
        runs.seconds("overfitting"),
    )


def _scales(
    runs: Runs, name: str, claim: str, what: str, variations: Mapping[int, Variation]
) -> Finding:
    """Optimizers at several scales of a task; the order at the middle one is set against others."""
    size = Size((250, 1000), 24)
    studies = {scale: runs(name, RIVALS, size, v) for scale, v in variations.items()}
    compared = {scale: _comparison(found) for scale, found in studies.items()}
    scales, rivals = list(compared), [name for name in RIVALS if name != BASELINE]
    table = [
        ["optimizer", *(f"speed-up at {what} {scale}" for scale in scales), "slope", "predicted"]
    ]
    misses = []
    for rival in rivals:
        gains = [compared[scale].overall(rival) for scale in scales]
        if any(gain is None or gain.bound != "=" for gain in gains):
            table.append([rival, *(str(gain or "-") for gain in gains), "-", "-"])
            continue
        logs = [math.log(gain.value) for gain in gains if gain]
        slope, start = np.polyfit(np.log(scales[:-1]), logs[:-1], 1)
        predicted = math.exp(slope * math.log(scales[-1]) + start)
        misses.append(abs(math.log(predicted) - logs[-1]))
        table.append([rival, *map(str, gains), f"{slope:+.3f}", f"{predicted:.2f}x"])
    own = {scale: one.order() for scale, one in compared.items()}
    taus = {
        (a, b): orders.compare(own[a], own[b]).tau
        for i, a in enumerate(scales)
        for b in scales[i + 1 :]
    }
    kept = [orders.compare(own[scales[0]], own[other]) for other in scales[1:]]
    separated, same = sum(x.separated for x in kept), sum(x.kept for x in kept)
    verdict: Verdict = (
        "not known yet"
        if not separated
        else "holds"
        if same == separated
        else "holds in part"
        if same > separated / 2
        else "does not hold here"
    )
    shown = ", ".join(f"{tau:.2f} ({a} and {b})" for (a, b), tau in taus.items() if tau is not None)
    text = (
        f"{same} of {separated} pairs that differ significantly at {what} {scales[0]} stand in the "
        f"same order at {' and '.join(map(str, scales[1:]))}. Kendall's tau of {len(RIVALS)} "
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
        verdict,
        text,
        table,
        _how(runs, name, size, f"{', '.join(RIVALS)}, tuned at each {what}"),
        studies[scales[0]][0].environment,
        runs.seconds(name),
    )


def _comparison(studies: Sequence[Loaded]) -> Comparison:
    return Comparison(
        BASELINE,
        [
            row_of(one.study, one.results, h)
            for one in studies
            for h in sorted({r.trial.horizon for r in one.results})
        ],
    )


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


EXPERIMENTS: Mapping[str, Callable[[Runs], Finding]] = {
    "modes": modes,
    "mixup": mixup,
    "overfitting": overfitting,
    "width": width,
    "batch": batch,
}

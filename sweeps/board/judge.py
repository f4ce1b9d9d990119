"""Judges an entry by all reruns of its runs, and says why in plain words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sweeps.board import agreement, entries
from sweeps.board.agreement import Mean, Noise
from sweeps.board.draw import finals_of, trials_of
from sweeps.board.entries import METRICS, Cost, Entry
from sweeps.board.reruns import Run, altered, unsettled
from sweeps.board.run_records import CURVES
from sweeps.results.summary import loss

TO_THE_LAST_DIGIT = "to the last digit"
COST = "cost"
COLUMNS = (*METRICS[1:], CURVES, COST)
"""What an entry shows besides probe losses."""
# What a rule adds to a step of the baseline may differ by this factor, and this part of the step.
COST_FACTOR, COST_PART = 3.0, 0.15
_NAMED = 8  # runs named in a sentence


@dataclass(frozen=True)
class Judgement:
    """What the reruns say.

    Attributes:
      verdict: "reproduced" or "failed".
      detail: one sentence with the outcome.
      test: how its final runs were compared: all of them EXACT, or by INTERVALS.
      unverified: columns of the board that no rerun covers, sorted.
      lines: what was compared and found, for the terminal.
    """

    verdict: Literal["reproduced", "failed"]
    detail: str
    test: Literal["exact", "intervals"] = "intervals"
    unverified: tuple[str, ...] = COLUMNS
    lines: tuple[str, ...] = ()


def judge(
    entry: Entry,
    runs: Sequence[Run],
    cost: Mapping[str, float] | None = None,
) -> Judgement:
    """Judges an entry by these reruns of its runs, from one machine or several.

    Exact equality decides first. A run that any machine repeated to the last digit is proved. A
    machine that repeats some runs so must repeat every number of all: the others were altered. On
    other machines, probe losses and the other metrics at the end are compared by their means: of
    all final runs jointly, of single rungs, and of the tuning trials. Versions and a fingerprint of
    the arithmetic do not say which machines these are: two processors that share them can still
    give a long sum or LAPACK's results other last digits.

    Args:
      entry: the entry.
      runs: the reruns.
      cost: what a step costs where it was rerun, with the fields of `entries.Cost`; None if it was
        not measured.
    """
    finals = [run for run in runs if run.kind == "final"]
    if not finals:
        return Judgement("failed", "all of its final runs failed")
    noises = _noises(entry, runs)
    noise = noises.pop(METRICS[0])
    joint, rungs = agreement.joint(runs, noise), agreement.by_rung(runs, noise)
    others = agreement.columns(runs, noises)
    tuning = agreement.tuning(runs, _tuned(entry), noise)
    reasons = [*_against_finals(runs, joint, rungs, others), *_against_tuning(tuning)]
    lines = [
        *_finals_lines(finals, joint, rungs),
        *_tuning_lines(runs, tuning, sum(map(len, _tuning_of(entry).values()))),
    ]
    if found := altered(runs):
        reasons = [_against_altered(runs, found)]
    reasons += _against_cost(entry, cost)
    exact = not unsettled(finals) and all(run.differs is not None for run in finals)
    unverified = _unverified(others, exact, cost is not None)
    what = _what(runs)
    if reasons:
        detail = f"of {what}, {'; '.join(reasons)}"
        return Judgement("failed", detail, _test(exact), unverified, tuple(lines))
    if joint is None and tuning.mean is None and not tuning.flipped:
        detail = f"{what} gave the recorded numbers {TO_THE_LAST_DIGIT}"
    else:
        means = [_mean_text("final run", joint), _mean_text("tuning trial", tuning.mean)]
        detail = f"{what} agree with the recorded probe losses: {'; '.join(filter(None, means))}"
        if tuning.flipped:
            detail += f"; other endings: {_names(tuning.flipped)}"
    return Judgement("reproduced", detail, _test(exact), unverified, tuple(lines))


def _test(exact: bool) -> Literal["exact", "intervals"]:
    return "exact" if exact else "intervals"


def _unverified(others: Mapping[str, Mean], exact: bool, cost: bool) -> tuple[str, ...]:
    covered = {*others, COST} if cost else {*others}
    if exact:
        covered |= {*COLUMNS} - {COST}
    return tuple(name for name in COLUMNS if name not in covered)


def _tuning_of(entry: Entry) -> dict[int, list[float | None]]:
    """Horizon -> recorded losses of its tuning trials; None for a failed one."""
    return {
        h: [None if math.isinf(loss(r)) else loss(r) for r in trials_of(entry, h)]
        for h in entry.horizons
    }


def _tuned(entry: Entry) -> dict[int, agreement.Tuned]:
    found = {h: agreement.tuned(losses) for h, losses in _tuning_of(entry).items()}
    return {h: rung for h, rung in found.items() if rung}


def _recorded(entry: Entry, metric: str) -> list[list[float]]:
    """For each rung, a metric of the recorded final runs."""
    runs = [[r.final or {} for r in finals_of(entry, h)] for h in entry.horizons]
    return [[final[metric] for final in rung if final.get(metric, 0) > 0] for rung in runs]


def _noises(entry: Entry, runs: Sequence[Run]) -> dict[str, Noise]:
    """The noise of a run, by metric."""
    found, _ = entries.load(entry.path.parent.parent, [entry.study.task])
    others = [other for other in found if other.study.optimizer != entry.study.optimizer]
    return {
        metric: agreement.noise_of(
            runs if metric == METRICS[0] else (),
            [group for other in others for group in _recorded(other, metric)],
            _recorded(entry, metric),
        )
        for metric in METRICS
    }


def _against_altered(runs: Sequence[Run], found: Sequence[Run]) -> str:
    named = ", ".join(
        " ".join([_names([run]), ", ".join(run.differs or ())]).strip() for run in found[:_NAMED]
    )
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    equal = len({run.key for run in runs if run.identical})
    return (
        f"{equal} are identical {TO_THE_LAST_DIGIT} where they were rerun, so that the others "
        f"were altered: {named}{more}"
    )


def _against_cost(entry: Entry, cost: Mapping[str, float] | None) -> list[str]:
    if cost is None or entry.cost is None:
        return []
    reasons, here, recorded = [], Cost(**cost), entry.cost
    less, more = sorted(max(one.relative - 1, 0.0) for one in (here, recorded))
    if more > COST_FACTOR * less + COST_PART:
        reasons.append(
            f"a step takes {here.relative:.2f} times as long as the baseline's, not "
            f"{recorded.relative:.2f} times"
        )
    size = here.state_bytes_per_parameter
    if abs(size - recorded.state_bytes_per_parameter) > 1e-6 * size:
        reasons.append(
            f"its state has {size:.2f} bytes a parameter, not "
            f"{recorded.state_bytes_per_parameter:.2f}"
        )
    return reasons


def _against_finals(
    runs: Sequence[Run], joint: Mean | None, rungs: dict[int, Mean], others: Mapping[str, Mean]
) -> list[str]:
    ended = {run.key for run in runs if run.rerun is not None}
    broken = [run for run in runs if run.kind == "final" and run.key not in ended]
    reasons = [f"some did not end well: {_names(broken)}"] if broken else []
    if joint and not joint.inside:
        reasons.append(f"outside its interval: {_mean_text('final run', joint)}")
    if outside := [h for h, mean in rungs.items() if not mean.inside]:
        reasons.append(f"the mean at {', '.join(map(str, outside))} is far from the recorded one")
    reasons += [
        f"{name} is outside its interval: {_mean_text('final run', mean)}"
        for name, mean in others.items()
        if not mean.inside
    ]
    return reasons


def _against_tuning(tuning: agreement.Tuning) -> list[str]:
    reasons = []
    if tuning.mean and not tuning.mean.inside:
        reasons.append(f"outside its interval: {_mean_text('tuning trial', tuning.mean)}")
    if tuning.outlying:
        reasons.append(f"these are far from the recorded loss: {_names(tuning.outlying)}")
    return reasons


def _finals_lines(
    finals: Sequence[Run], joint: Mean | None, rungs: dict[int, Mean]
) -> Iterable[str]:
    for h in sorted({run.horizon for run in finals}):
        keys = {run.key for run in finals if run.horizon == h}
        equal = {run.key for run in finals if run.horizon == h and run.identical}
        line = f"{h:6} steps: {len(equal)} of {len(keys)} final runs identical {TO_THE_LAST_DIGIT}"
        if h in rungs:
            mean = rungs[h]
            line += (
                f"; the others: rerun / recorded {percent(mean.value)}, "
                f"screened at {percent(mean.low)} to {percent(mean.high)}"
            )
        yield line
    if joint:
        yield f"All final runs: {_mean_text('run', joint)}."


def _tuning_lines(runs: Sequence[Run], tuning: agreement.Tuning, of: int) -> Iterable[str]:
    keys = {run.key for run in runs if run.kind == "tuning"}
    if not keys:
        yield "No tuning trial was rerun." if of else "It has no tuning trials."
        return
    agree = len({run.key for run in runs if run.kind == "tuning" and run.agrees})
    yield f"{agree} of {len(keys)} tuning trials (it has {of}) ended exactly as recorded."
    if tuning.mean:
        yield f"The others: {_mean_text('tuning trial', tuning.mean)}."
    if tuning.far:
        yield f"{tuning.far} too far from the best of their horizon to compare losses."
    for run in tuning.flipped:
        was, now = (
            "failed" if x is None else f"ended with {x:.4g}" for x in (run.recorded, run.rerun)
        )
        yield f"{_names([run])}: {was} when recorded, {now} when rerun."


def _what(runs: Sequence[Run]) -> str:
    """Such as "6 runs at horizons 4, 8, 16 and 2 tuning trials"."""
    finals = {run.key for run in runs if run.kind == "final"}
    tuning = {run.key for run in runs if run.kind == "tuning"}
    horizons = ", ".join(map(str, sorted({key[1] for key in finals})))
    text = f"{_count(len(finals), 'run')} at horizons {horizons}"
    return text + (f" and {_count(len(tuning), 'tuning trial')}" if tuning else "")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _mean_text(what: str, mean: Mean | None) -> str:
    if mean is None:
        return ""
    return (
        f"mean of rerun / recorded over {_count(mean.runs, what)} {percent(mean.value)}, "
        f"expected {percent(mean.low)} to {percent(mean.high)}"
    )


def percent(log: float) -> str:
    """A log ratio as text, such as "+1.25 %"."""
    return f"{100 * math.expm1(log):+.2f} %" if log < 10 else "any"


def _names(runs: Iterable[Run]) -> str:
    """Such as "250 (seed 1), 500 (trial 3)"; trials count from 0, as in the entry's lists."""
    keys = list(dict.fromkeys(run.key for run in runs))
    named = [
        f"{horizon} ({f'seed {seed}' if trial is None else f'trial {trial}'})"
        for _, horizon, seed, trial in keys[:_NAMED]
    ]
    more = [f"and {len(keys) - _NAMED} more"] if len(keys) > _NAMED else []
    return ", ".join(named + more)

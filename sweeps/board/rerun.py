"""Verifies an entry: looks for contradictions in it, then repeats its final runs.

Code carried by an entry runs only if the user trusts it. Built-in optimizers and factories of optax
run from this installation.
"""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from distill_bench.training.events import Event, Finished, Point
from optimizers.contract import registry, source_digest
from optimizers.contract.api import Optimizer
from sweeps.board.consistency import inconsistencies
from sweeps.board.entries import Entry
from sweeps.board.verdicts import Verdict
from sweeps.execution.resources import Resources
from sweeps.planning.environment import environment
from sweeps.planning.plan import describe_domain, lane_of
from sweeps.planning.study import TUNING_SEED, Result

TO_THE_LAST_DIGIT = "to the last digit"
_SAME = 1e-8  # relative; entries keep nine digits, which identify a float32


@dataclass(frozen=True)
class Rung:
    """One rung of an entry, rerun.

    Attributes:
      horizon: the rung's horizon in gradient evaluations.
      recorded: seed -> recorded probe loss.
      rerun: seed -> probe loss of the rerun; None if it failed.
      low, high: prediction interval of the geometric mean of the reruns, computed from the recorded
        losses; 95 % over all rungs together.
    """

    horizon: int
    recorded: Mapping[int, float]
    rerun: Mapping[int, float | None]
    low: float
    high: float

    @property
    def identical(self) -> int:
        """The number of reruns with the recorded loss to the last digit."""
        return sum(
            new is not None and abs(new - self.recorded[seed]) <= _SAME * self.recorded[seed]
            for seed, new in self.rerun.items()
        )

    @property
    def mean(self) -> float | None:
        """Geometric mean of the reruns; None if one failed."""
        new = list(self.rerun.values())
        if None in new:
            return None
        return float(np.exp(np.mean(np.log([value for value in new if value is not None]))))

    @property
    def inside(self) -> bool:
        """Whether the reruns agree with the recorded losses."""
        return self.identical == len(self.rerun) or (
            self.mean is not None and self.low <= self.mean <= self.high
        )


def prediction_interval(recorded: Sequence[float], new: int, rungs: int = 1) -> tuple[float, float]:
    """The interval that holds the geometric mean of `new` more runs with 95 % probability.

    Student's t on log losses. The error is split evenly among `rungs` intervals (Bonferroni), so
    that all of them hold together with 95 % probability.
    """
    from scipy.stats import t

    logs, n = np.log(recorded), len(recorded)
    if n < 2:
        return 0.0, float("inf")
    reach = (
        float(t.ppf(1 - 0.025 / rungs, n - 1))
        * float(np.std(logs, ddof=1))
        * np.sqrt(1 / new + 1 / n)
    )
    return float(np.exp(np.mean(logs) - reach)), float(np.exp(np.mean(logs) + reach))


def verify(
    entry: Entry,
    seeds: int | None,
    horizons: Sequence[int],
    trust: bool,
    watch: Callable[[Event, int], None],
) -> tuple[Verdict, list[Rung]]:
    """Reruns the entry's final runs and judges them.

    Args:
      entry: the entry.
      seeds: rerun only this many of the recorded seeds, the first ones; None for all.
      horizons: horizons to rerun; empty for all.
      trust: allow the code that the entry carries to run.
      watch: called with each training event and the total number of steps.

    Raises:
      UserError: if one of `horizons` is not in the entry; or if the optimizer is not built in and
        `trust` is false, or its code is missing or fails to import.
    """
    task = catalogue.get(entry.study.task)
    if unknown := sorted(set(horizons) - set(entry.horizons)):
        raise UserError(
            f"--horizons={unknown[0]} is not a horizon of {entry.path}. "
            f"Use some of {', '.join(map(str, entry.horizons))}."
        )
    found = inconsistencies(entry)
    if entry.study.fingerprint != task.fingerprint():
        found.append(f"it ran on another version of the task ({entry.study.fingerprint})")
    if found:
        return _verdict(entry, "failed", "; ".join(found), []), []
    with optimizer_of(entry, trust) as (opt, contradictions):
        if contradictions:
            return _verdict(entry, "failed", "; ".join(contradictions), []), []
        chosen = [h for h in entry.horizons if not horizons or h in horizons]
        rungs = rerun_finals(entry, opt, seeds, chosen, watch)
    verdict, detail = _judge(rungs)
    return _verdict(entry, verdict, detail, described(rungs)), rungs


def described(rungs: Sequence[Rung]) -> list[dict[str, Any]]:
    """Each rerun as plain data, for a verdict's `runs`."""
    return [
        {
            "horizon": r.horizon,
            "seed": s,
            "recorded": r.recorded[s],
            "rerun": new,
            "low": r.low,
            "high": r.high,
        }
        for r in rungs
        for s, new in r.rerun.items()
    ]


def _verdict(
    entry: Entry, verdict: Literal["reproduced", "failed"], detail: str, runs: list[dict[str, Any]]
) -> Verdict:
    return Verdict(verdict, detail, entry.sha256, environment(), runs)


@contextlib.contextmanager
def optimizer_of(entry: Entry, trust: bool) -> Iterator[tuple[Optimizer, list[str]]]:
    """Yields the entry's optimizer, and the signs that it is not the one that ran.

    Raises:
      UserError: if it is not built in and `trust` is false, or its code is missing or fails to
        import.
    """
    study, spec = entry.study, entry.spec
    if spec in registry.builtins() or (
        spec.startswith("optax:") and spec.removeprefix("optax:").isidentifier()
    ):
        yield _checked(entry, _resolve(entry, spec))
        return
    declaring = [
        name
        for name, text in entry.sources.items()
        if study.optimizer in source_digest.declared_in(text)
    ]
    carried = [
        f"  {name}, {len(text.splitlines())} lines"
        for name, text in entry.sources.items()
        if name in declaring
    ]
    if len(declaring) != 1:
        raise UserError(
            f"{entry.path} cannot be rerun: it must carry exactly one file that declares "
            f"{study.optimizer}, and it carries {len(declaring)}."
        )
    if not trust:
        raise UserError(
            f"The optimizer of {entry.path} is not built in. "
            "Rerunning it would run code from the entry:\n"
            + "\n".join(carried)
            + "\nRead this code in the entry, under 'sources', then pass --trust to run it."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(declaring[0]).name
        path.write_text(entry.sources[declaring[0]])
        yield _checked(entry, _resolve(entry, f"{path}:{study.optimizer}"))


def _resolve(entry: Entry, spec: str) -> registry.Resolved:
    try:
        return registry.resolve(spec)
    except registry.UnknownOptimizer as error:
        raise UserError(str(error)) from None
    except Exception:
        raise UserError(
            f"The code in {entry.path} cannot be imported. Its error:\n\n"
            f"{traceback.format_exc(limit=-2)}"
        ) from None


def _checked(entry: Entry, found: registry.Resolved) -> tuple[Optimizer, list[str]]:
    contradictions = []
    if found.optimizer.name != entry.study.optimizer:
        contradictions.append(
            f"its runs are those of {found.optimizer.name}, not of {entry.study.optimizer}"
        )
    if found.source_sha256 != entry.study.source_sha256:
        here = source_digest.source_files(found.path)
        differ = sorted(
            name
            for name in {*here, *entry.sources}
            if source_digest.digest({name: here.get(name, "")})
            != source_digest.digest({name: entry.sources.get(name, "")})
        )
        contradictions.append(
            f"its source differs from the one here ({', '.join(differ)}), so it cannot be confirmed"
        )
    if {
        name: describe_domain(domain) for name, domain in found.optimizer.space.items()
    } != entry.study.space:
        contradictions.append("its search space is not the one that its source declares")
    return found.optimizer, contradictions


def rerun_finals(
    entry: Entry,
    opt: Optimizer,
    seeds: int | None,
    horizons: Sequence[int],
    watch: Callable[[Event, int], None],
) -> list[Rung]:
    """Reruns the final runs of these horizons on the first `seeds` seeds; None for all."""
    from distill_bench.training.train import train

    runs = {h: _recorded(entry, h) for h in horizons}
    chosen = [(h, result) for h, results in runs.items() for result in results[:seeds]]
    engine = Resources().open_engine(catalogue.get(entry.study.task))
    lanes = [
        lane_of(opt, result.trial.hparams, opt.steps(h), result.trial.seed) for h, result in chosen
    ]
    ended: dict[int, float] = {}
    last: dict[int, float] = {}
    for event in train(engine, lanes):
        watch(event, sum(lane.horizon for lane in lanes))
        match event:
            case Point(lane, _, metrics) if "probe_loss" in metrics:
                last[lane] = metrics["probe_loss"]
            case Finished(lane, "ok"):
                ended[lane] = last[lane]
    rungs = []
    for h, results in runs.items():
        rerun = {
            result.trial.seed: ended.get(i)
            for i, (horizon, result) in enumerate(chosen)
            if horizon == h
        }
        recorded = {
            result.trial.seed: result.final["probe_loss"] for result in results if result.final
        }
        rungs.append(
            Rung(
                h,
                recorded,
                rerun,
                *prediction_interval(list(recorded.values()), len(rerun), len(runs)),
            )
        )
    return rungs


def _recorded(entry: Entry, horizon: int) -> list[Result]:
    """The final runs of a rung that did not fail, ordered by seed."""
    here = [
        r
        for r in entry.results
        if r.trial.horizon == horizon and r.trial.seed != TUNING_SEED and r.final
    ]
    return sorted(here, key=lambda r: r.trial.seed)


def _judge(rungs: Sequence[Rung]) -> tuple[Literal["reproduced", "failed"], str]:
    count, identical = sum(len(rung.rerun) for rung in rungs), sum(rung.identical for rung in rungs)
    runs = f"{count} runs at horizons {', '.join(str(rung.horizon) for rung in rungs)}"
    if not count:
        return "failed", "all of its final runs failed"
    if identical == count:
        return "reproduced", f"{runs} gave the recorded probe losses {TO_THE_LAST_DIGIT}"
    if outside := [rung.horizon for rung in rungs if not rung.inside]:
        return (
            "failed",
            f"of {runs}, the mean at {', '.join(map(str, outside))} "
            "lies outside its prediction interval",
        )
    if identical:
        # A machine repeats a run bit for bit or not at all, so the other losses were altered.
        altered = [
            f"{r.horizon} (seed {s})"
            for r in rungs
            for s, new in r.rerun.items()
            if new is None or abs(new - r.recorded[s]) > _SAME * r.recorded[s]
        ]
        return (
            "failed",
            f"of {runs}, {identical} are identical to the last digit, "
            f"so the others were altered: {', '.join(altered)}",
        )
    return "reproduced", f"{runs}: all means lie within their prediction intervals"

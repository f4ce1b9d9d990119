"""Whether an entry's numbers come out again: what in it contradicts itself, then its final runs once more.

Nothing that an entry carries is executed unless the user trusts it: built-in optimizers and factories of optax run as they are here.
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

_SAME = 1e-8  # entries keep nine digits, which name a float32


@dataclass(frozen=True)
class Rung:
    """One rung rerun: recorded and rerun probe losses by seed (None where the rerun did not end well).

    low, high: the 95 % prediction interval of the mean of so many new runs, from the recorded ones, over all rungs together.
    """

    horizon: int
    recorded: Mapping[int, float]
    rerun: Mapping[int, float | None]
    low: float
    high: float

    @property
    def identical(self) -> int:
        """Reruns that gave the recorded loss to its last digit."""
        return sum(
            new is not None and abs(new - self.recorded[seed]) <= _SAME * self.recorded[seed]
            for seed, new in self.rerun.items()
        )

    @property
    def mean(self) -> float | None:
        """Geometric mean of the reruns; None where one did not end well."""
        new = list(self.rerun.values())
        return (
            None
            if None in new
            else float(np.exp(np.mean(np.log([value for value in new if value is not None]))))
        )

    @property
    def inside(self) -> bool:
        return self.identical == len(self.rerun) or (
            self.mean is not None and self.low <= self.mean <= self.high
        )


def prediction_interval(recorded: Sequence[float], new: int, rungs: int = 1) -> tuple[float, float]:
    """Where the geometric mean of `new` more runs lies with 95 % probability, `rungs` such statements together.

    Student's t on logarithms, the level split evenly among the rungs (Bonferroni).
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

    seeds: the first so many of those recorded; None for all. horizons: those to rerun; empty for all. `watch` is told of each event of
    training and of all its steps.

    Raises:
      UserError: where the entry's optimizer is code that it carries, and `trust` is false; or one of `horizons` is not in it.
    """
    task = catalogue.get(entry.study.task)
    if strangers := sorted(set(horizons) - set(entry.horizons)):
        raise UserError(
            f"--horizons={strangers[0]} is none of {entry.path}: it has {', '.join(map(str, entry.horizons))}."
        )
    found = inconsistencies(entry)
    if entry.study.fingerprint != task.fingerprint():
        found.append(f"it is of another version of the task ({entry.study.fingerprint})")
    if found:
        return _verdict(entry, "failed", "; ".join(found), []), []
    with _optimizer(entry, trust) as (opt, contradictions):
        if contradictions:
            return _verdict(entry, "failed", "; ".join(contradictions), []), []
        chosen = [h for h in entry.horizons if not horizons or h in horizons]
        rungs = _rerun(entry, opt, seeds, chosen, watch)
    verdict, detail = _judge(rungs)
    runs = [
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
    return _verdict(entry, verdict, detail, runs), rungs


def _verdict(
    entry: Entry, verdict: Literal["reproduced", "failed"], detail: str, runs: list[dict[str, Any]]
) -> Verdict:
    return Verdict(verdict, detail, entry.sha256, environment(), runs)


@contextlib.contextmanager
def _optimizer(entry: Entry, trust: bool) -> Iterator[tuple[Optimizer, list[str]]]:
    """The entry's optimizer, and what contradicts that it is the one that ran."""
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
            f"{entry.path} carries no file that declares {study.optimizer}: it cannot be rerun."
        )
    if not trust:
        raise UserError(
            f"{entry.path} is of an optimizer that is not built in; rerunning it would run code that the entry carries:\n"
            + "\n".join(carried)
            + "\nRead it in the entry, under 'sources', then pass --trust to run it."
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
            f"The code that {entry.path} carries cannot be imported; its own error:\n\n{traceback.format_exc(limit=-2)}"
        ) from None


def _checked(entry: Entry, found: registry.Resolved) -> tuple[Optimizer, list[str]]:
    contradictions = []
    if found.optimizer.name != entry.study.optimizer:
        contradictions.append(
            f"its runs are of {found.optimizer.name}, not of {entry.study.optimizer}"
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
            f"its source differs from the one here ({', '.join(differ)}), which cannot confirm it"
        )
    if {
        name: describe_domain(domain) for name, domain in found.optimizer.space.items()
    } != entry.study.space:
        contradictions.append("its space is not the one that its source declares")
    return found.optimizer, contradictions


def _rerun(
    entry: Entry,
    opt: Optimizer,
    seeds: int | None,
    horizons: Sequence[int],
    watch: Callable[[Event, int], None],
) -> list[Rung]:
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
            case Point(lane, _, metrics):
                last[lane] = metrics["probe_loss"]
            case Finished(lane, "ok"):
                ended[lane] = last[lane]
    rungs = []
    for h, results in runs.items():
        again = {
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
                again,
                *prediction_interval(list(recorded.values()), len(again), len(runs)),
            )
        )
    return rungs


def _recorded(entry: Entry, horizon: int) -> list[Result]:
    """The final runs of a rung that ended well, by seed."""
    here = [
        r
        for r in entry.results
        if r.trial.horizon == horizon and r.trial.seed != TUNING_SEED and r.final
    ]
    return sorted(here, key=lambda r: r.trial.seed)


def _judge(rungs: Sequence[Rung]) -> tuple[Literal["reproduced", "failed"], str]:
    count, identical = sum(len(rung.rerun) for rung in rungs), sum(rung.identical for rung in rungs)
    what = f"{count} runs at horizons {', '.join(str(rung.horizon) for rung in rungs)}"
    if not count:
        return "failed", "it has no final run that ended well"
    if identical == count:
        return "reproduced", f"{what} gave the recorded probe losses to the last digit"
    if outside := [rung.horizon for rung in rungs if not rung.inside]:
        return (
            "failed",
            f"of {what}, the mean at {', '.join(map(str, outside))} lies outside its prediction interval",
        )
    if identical:
        # One machine gives the same bits or it does not: runs cannot differ beside others that are identical.
        altered = [
            f"{r.horizon} (seed {s})"
            for r in rungs
            for s, new in r.rerun.items()
            if new is None or abs(new - r.recorded[s]) > _SAME * r.recorded[s]
        ]
        return (
            "failed",
            f"of {what}, {identical} are identical to the last digit and these are not, so that they were altered: {', '.join(altered)}",
        )
    return "reproduced", f"{what}: all means within their prediction intervals"

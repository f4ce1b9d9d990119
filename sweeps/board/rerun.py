"""Verifies an entry: looks for contradictions in it, then repeats runs that the verifier drew.

Code carried by an entry runs only if the user trusts it. Built-in optimizers and factories of optax
run from this installation.
"""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_bench import settings
from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from distill_bench.training.events import Event, Finished, Point
from optimizers.contract import registry, source_digest
from optimizers.contract.api import Optimizer
from optimizers.contract.reach import beyond
from optimizers.contract.syntax import declared_in
from sweeps.board.agreement import Run
from sweeps.board.consistency import inconsistencies
from sweeps.board.draw import Drawn, Request, draw
from sweeps.board.entries import Entry
from sweeps.board.judge import judge
from sweeps.board.verdicts import Verdict, here
from sweeps.execution.resources import Resources
from sweeps.planning.environment import versions
from sweeps.planning.plan import describe_domain, lane_of
from sweeps.planning.study import Result

_LARGEST = 1e38  # losses are float32


@dataclass(frozen=True)
class Outcome:
    """What came of verifying an entry.

    Attributes:
      verdict: the verdict on these reruns alone.
      drawn: the runs that were rerun; None if nothing was.
      lines: what was compared and found, for the terminal.
      confirms: whether this says anything of the entry. Reruns do, and so do contradictions inside
        it; that the task or the code here are other ones does not.
    """

    verdict: Verdict
    drawn: Drawn | None = None
    lines: tuple[str, ...] = ()
    confirms: bool = True


def verify(
    entry: Entry, request: Request, trust: bool, watch: Callable[[Event, int], None]
) -> Outcome:
    """Reruns runs of the entry and judges them.

    Args:
      entry: the entry.
      request: what to rerun.
      trust: allow the code that the entry carries to run.
      watch: called with each training event and the total number of steps.

    Raises:
      UserError: if one of the horizons is not in the entry; or if the optimizer is not built in and
        `trust` is false, or its code is missing or fails to import.
    """
    task = catalogue.get(entry.study.task)
    drawn = draw(entry, request)
    if found := inconsistencies(entry):
        return Outcome(_failed(entry, found))
    if entry.study.fingerprint != task.fingerprint():
        found = [f"it ran on another version of the task ({entry.study.fingerprint})"]
        return Outcome(_failed(entry, found), confirms=False)
    with optimizer_of(entry, trust) as (opt, contradictions):
        if contradictions:
            return Outcome(_failed(entry, contradictions), confirms=False)
        runs = rerun(entry, opt, drawn, watch)
    judged = judge(entry, runs)
    verdict = Verdict(
        judged.verdict,
        judged.detail,
        entry.sha256,
        here(),
        [asdict(run) for run in runs],
        draws=[{"seed": drawn.seed, "finals": len(drawn.finals), "tuning": len(drawn.tuning)}],
    )
    lines = judged.lines if any(run.identical for run in runs) else (*judged.lines, _why(entry))
    return Outcome(verdict, drawn, lines)


def _why(entry: Entry) -> str:
    """Why no rerun has the recorded digits, as far as versions say."""
    then, now = entry.study.versions, versions()
    differ = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if not differ:
        return (
            "No number is identical, though the versions are the same: this is another processor "
            "than the one that recorded the entry, or the entry was altered throughout."
        )
    changed = (
        f"{name} {then.get(name, 'unknown')}, here {now.get(name, 'none')}" for name in differ
    )
    return f"No number is identical; it was recorded with {'; '.join(changed)}."


def _failed(entry: Entry, reasons: Sequence[str]) -> Verdict:
    return Verdict("failed", "; ".join(reasons), entry.sha256, here(), [])


def rerun(
    entry: Entry, opt: Optimizer, drawn: Drawn, watch: Callable[[Event, int], None]
) -> list[Run]:
    """Trains the drawn runs again: finals as finals, tuning trials as tuning trials."""
    from distill_bench.training.train import train

    chosen: list[tuple[int | None, Result]] = [(None, result) for result in drawn.finals]
    chosen += drawn.tuning
    trials = [result.trial for _, result in chosen]
    lanes = [lane_of(opt, t.hparams, opt.steps(t.horizon), t.seed) for t in trials]
    if not lanes:
        return []
    steps = sum(lane.horizon for lane in lanes)
    ended: dict[int, float] = {}
    last: dict[int, float] = {}
    engine = Resources().open_engine(catalogue.get(entry.study.task))
    for event in train(engine, lanes):
        watch(event, steps)
        match event:
            case Point(lane, _, metrics) if "probe_loss" in metrics:
                last[lane] = metrics["probe_loss"]
            case Finished(lane, "ok") if 0 < last[lane] < _LARGEST:
                ended[lane] = last[lane]
    return [
        Run(
            "final" if index is None else "tuning",
            result.trial.horizon,
            result.trial.seed,
            index,
            result.final["probe_loss"] if result.final else None,
            ended.get(lane),
        )
        for lane, (index, result) in enumerate(chosen)
    ]


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
        yield _checked(entry, _resolve(entry, lambda: registry.resolve(spec)))
        return
    declaring = [
        name for name, text in entry.sources.items() if study.optimizer in declared_in(text)
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
            + "\n".join(_files_to_read(source_digest.own_files(entry.sources)))
            + "\nRead this code in the entry, under 'sources', then pass --trust to run it."
        )
    with tempfile.TemporaryDirectory() as folder:
        carried = (entry.sources, declaring[0], study.optimizer, Path(folder))
        yield _checked(entry, _resolve(entry, lambda: registry.resolve_carried(*carried)))


def _files_to_read(own: Mapping[str, str]) -> list[str]:
    """A line for each file: its length, and what it reaches beyond arrays."""
    reached = beyond(own)
    return [
        f"  {name}, {len(text.splitlines())} lines"
        + (f"; reaches {', '.join(reached[name])}" if name in reached else "")
        for name, text in own.items()
    ]


def _resolve(entry: Entry, resolve: Callable[[], registry.Resolved]) -> registry.Resolved:
    before = settings.current()
    try:
        return resolve()
    except registry.UnknownOptimizer as error:
        raise UserError(str(error)) from None
    except Exception:
        raise UserError(
            f"The code in {entry.path} cannot be imported. Its error:\n\n"
            f"{traceback.format_exc(limit=-2)}"
        ) from None
    finally:
        before.restore()


def _checked(entry: Entry, found: registry.Resolved) -> tuple[Optimizer, list[str]]:
    contradictions = []
    if found.optimizer.name != entry.study.optimizer:
        contradictions.append(
            f"its runs are those of {found.optimizer.name}, not of {entry.study.optimizer}"
        )
    if found.source_sha256 != entry.study.source_sha256:
        here = found.sources
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

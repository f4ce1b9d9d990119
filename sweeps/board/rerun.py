"""Verifies an entry: looks for contradictions in it, then repeats runs that the verifier drew.

Code carried by an entry runs only if the user trusts it. Built-in optimizers and factories of optax
run from this installation.
"""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_bench import settings
from distill_bench.errors import UserError
from distill_bench.tasks import catalogue
from distill_bench.tasks.task import Task
from distill_bench.training.events import Event
from optimizers.contract import registry, source_digest
from optimizers.contract.api import Optimizer
from sweeps.board import carried
from sweeps.board.consistency import inconsistencies
from sweeps.board.draw import Drawn, Request, draw
from sweeps.board.entries import BASELINE, METRICS, Entry
from sweeps.board.judge import judge
from sweeps.board.reruns import Run
from sweeps.board.run_records import differences
from sweeps.board.train_again import train_again
from sweeps.board.verdicts import Verdict, here
from sweeps.execution.resources import Resources
from sweeps.planning.environment import versions
from sweeps.planning.plan import describe_domain
from sweeps.planning.study import Result


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
    entry: Entry,
    request: Request,
    trust: bool,
    watch: Callable[[Event, int], None],
    measures_cost: bool = True,
) -> Outcome:
    """Reruns runs of the entry and judges them.

    Args:
      entry: the entry.
      request: what to rerun.
      trust: allow the code that the entry carries to run.
      watch: called with each training event and the total number of steps.
      measures_cost: measure the cost of the update rule as well, if it is built in.

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
    if is_carried(entry):
        with carried_code(entry, trust) as spec, tempfile.TemporaryDirectory() as folder:
            engine = Resources().open_engine(task)
            trials = [result.trial for _, result in _chosen(drawn)]
            path = Path(spec.rpartition(":")[0])
            if contradictions := _other_source(entry, path, source_digest.source_sha256(path)):
                return Outcome(_failed(entry, contradictions), confirms=False)
            results, found = carried.rerun(engine, spec, trials, Path(folder), watch)
        if found:
            return Outcome(_failed(entry, found))
        runs, cost = _compared(entry, drawn, results), None
    else:
        opt, contradictions = _checked(entry, _resolve(entry, entry.spec))
        if contradictions:
            return Outcome(_failed(entry, contradictions), confirms=False)
        runs = rerun(entry, opt, drawn, watch)
        cost = measure_cost(task, opt) if measures_cost and entry.cost else None
    environment = here()
    judged = judge(entry, runs, [environment], cost)
    verdict = Verdict(
        judged.verdict,
        judged.detail,
        entry.sha256,
        environment,
        [asdict(run) for run in runs],
        draws=[{"seed": drawn.seed, "finals": len(drawn.finals), "tuning": len(drawn.tuning)}],
        test=judged.test,
        unverified=list(judged.unverified),
        cost=cost,
    )
    lines = judged.lines if any(run.identical for run in runs) else (*judged.lines, _why(entry))
    return Outcome(verdict, drawn, lines)


def measure_cost(task: Task, opt: Optimizer) -> dict[str, float]:
    """What an update of the optimizer costs here, with names of fields of `entries.Cost`."""
    from sweeps.timing import update_cost

    measured = update_cost.optimizer_cost(task, opt, registry.resolve(BASELINE).optimizer)
    return {
        "relative": measured["update_ratio"],
        "state_bytes_per_parameter": measured["state_bytes_per_parameter"],
    }


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
    trials = [result.trial for _, result in _chosen(drawn)]
    if not trials:
        return []
    engine = Resources().open_engine(catalogue.get(entry.study.task))
    return _compared(entry, drawn, train_again(engine, opt, trials, watch))


def _chosen(drawn: Drawn) -> list[tuple[int | None, Result]]:
    """All drawn runs, each with its index if it is a tuning trial."""
    return [*((None, result) for result in drawn.finals), *drawn.tuning]


def _compared(entry: Entry, drawn: Drawn, again: Sequence[Result]) -> list[Run]:
    return [
        _run(entry, index, recorded, rerun)
        for (index, recorded), rerun in zip(_chosen(drawn), again, strict=True)
    ]


def _run(entry: Entry, index: int | None, recorded: Result, again: Result) -> Run:
    old, new = recorded.final or {}, again.final or {}
    others = [name for name in METRICS[1:] if index is None and name in old and name in new]
    return Run(
        "tuning" if index is not None else "final",
        recorded.trial.horizon,
        recorded.trial.seed,
        index,
        old.get("probe_loss"),
        new.get("probe_loss"),
        differs=differences(entry, recorded, again),
        metrics={name: (old[name], new[name]) for name in others},
    )


def is_carried(entry: Entry) -> bool:
    """Whether the optimizer is not part of this installation, so that its code must come from the
    entry."""
    spec = entry.spec
    built_in = spec in registry.builtins()
    return not built_in and not (
        spec.startswith("optax:") and spec.removeprefix("optax:").isidentifier()
    )


@contextlib.contextmanager
def optimizer_of(entry: Entry, trust: bool) -> Iterator[tuple[Optimizer, list[str]]]:
    """Yields the entry's optimizer, and the signs that it is not the one that ran.

    Raises:
      UserError: if it is not built in and `trust` is false, or its code is missing or fails to
        import.
    """
    if not is_carried(entry):
        yield _checked(entry, _resolve(entry, entry.spec))
        return
    with carried_code(entry, trust) as spec:
        yield _checked(entry, _resolve(entry, spec))


@contextlib.contextmanager
def carried_code(entry: Entry, trust: bool) -> Iterator[str]:
    """Writes the code that the entry carries into a folder of its own, and yields its name there,
    such as "/tmp/x/mine.py:mine".

    Raises:
      UserError: if `trust` is false or the code is missing.
    """
    study = entry.study
    own = {name: text for name, text in entry.sources.items() if not _is_ours(name)}
    declaring = [n for n, text in own.items() if study.optimizer in source_digest.declared_in(text)]
    if len(declaring) != 1:
        raise UserError(
            f"{entry.path} cannot be rerun: it must carry exactly one file that declares "
            f"{study.optimizer}, and it carries {len(declaring)}."
        )
    if not trust:
        carried = [f"  {name}, {len(text.splitlines())} lines" for name, text in own.items()]
        raise UserError(
            f"The optimizer of {entry.path} is not built in. "
            "Rerunning it would run code from the entry:\n"
            + "\n".join(carried)
            + "\nRead this code in the entry, under 'sources', then pass --trust to run it."
        )
    with tempfile.TemporaryDirectory() as folder:
        for name, text in own.items():
            path = Path(folder, name).resolve()
            if not path.is_relative_to(Path(folder).resolve()):
                raise UserError(f"{entry.path} carries a file with the name {name!r}.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        yield f"{Path(folder, declaring[0])}:{study.optimizer}"


def _is_ours(name: str) -> bool:
    return name.startswith(f"{source_digest.PACKAGE.name}/")


def _resolve(entry: Entry, spec: str) -> registry.Resolved:
    before = settings.current()
    try:
        return registry.resolve(spec)
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
    contradictions += _other_source(entry, found.path, found.source_sha256)
    if {
        name: describe_domain(domain) for name, domain in found.optimizer.space.items()
    } != entry.study.space:
        contradictions.append("its search space is not the one that its source declares")
    return found.optimizer, contradictions


def _other_source(entry: Entry, path: Path, sha256: str) -> list[str]:
    """A sentence that says which files differ if the digest of the code here is not the entry's."""
    if sha256 == entry.study.source_sha256:
        return []
    here = source_digest.source_files(path)
    differ = sorted(
        name
        for name in {*here, *entry.sources}
        if source_digest.digest({name: here.get(name, "")})
        != source_digest.digest({name: entry.sources.get(name, "")})
    )
    return [
        f"its source differs from the one here ({', '.join(differ)}), so it cannot be confirmed"
    ]

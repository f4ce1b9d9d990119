"""What a run says of its optimizers: what is being compiled, and how trials ended."""

from __future__ import annotations

from collections.abc import Sequence

from distill_bench.training.events import Compiled
from sweeps.execution.progress import Display
from sweeps.planning.plan import Job
from sweeps.planning.plug_ins import own_traceback
from sweeps.planning.study import Status


def compiling(names: Sequence[str], of: int) -> str:
    """What is being compiled: "compiling splus, 3 of 4"."""
    unique = list(dict.fromkeys(names))
    shown = ", ".join(unique[:3]) + (", ..." if len(unique) > 3 else "")
    return f"compiling {shown}" + (f", {of - len(names) + 1} of {of}" if of > 1 else "")


def show_end(
    display: Display, explained: set[str], job: Job, status: Status, detail: str | None
) -> None:
    """Shows one line per divergence, and each optimizer's exception once."""
    candidate, trial = job
    name = candidate.optimizer.name
    if status == "diverged":
        display.say(f"{name} diverged: {detail} ({trial.name})")
    elif status == "crashed" and name not in explained:
        explained.add(name)
        own = own_traceback([detail or ""], str(candidate.entry.path.resolve()))
        display.say(
            f"{name} crashed; its trials have ended, the others go on. Its own error:\n\n{own}\n"
        )


def show_compiled(
    display: Display, explained: set[str], jobs: Sequence[Job], event: Compiled
) -> None:
    """Shows how long compilation took, and which optimizers are compiled once per value."""
    if event.rules:
        display.say(
            f"Compiled {event.rules} update rule{'s' * (event.rules > 1)} for {len(jobs)} trials "
            f"in {event.seconds:.0f} s"
        )
    for lane, names in event.static.items():
        candidate, trial = jobs[lane]
        name = candidate.optimizer.name
        floats = [hparam for hparam in names if isinstance(trial.hparams.get(hparam), float)]
        if floats and name not in explained:
            explained.add(name)
            display.say(
                f"{name} reads the value of {', '.join(floats)} in Python, so it is compiled once "
                "for each value."
            )

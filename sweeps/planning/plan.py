"""From what a user typed to a checked plan of trials; nothing is written or computed."""

from __future__ import annotations

import itertools
import math
import os
import platform
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from distill_bench.errors import UserError, suggestion
from distill_bench.tasks import catalogue
from distill_bench.tasks.task import Task
from distill_bench.tasks.variation import Variation, vary
from distill_bench.training.rules import Contract, Lane
from optimizers.contract import registry
from optimizers.contract.api import Optimizer
from optimizers.contract.domains import Domain
from sweeps.planning.sampling import sample
from sweeps.planning.study import TUNING_SEED, Study, Trial

_PACKAGES = ("distill-bench", "jax", "jaxlib", "optax", "flax", "numpy")


def lane_of(opt: Optimizer, hparams: Mapping[str, Any], steps: int, seed: int) -> Lane:
    """One run of the optimizer, as the engine takes it."""
    return Lane(opt.builder, hparams, steps, seed, Contract(opt.extra_args, opt.eval_params))


@dataclass(frozen=True)
class Candidate:
    """An optimizer as it was typed, with its study and the hyperparameters of its tuning trials."""

    spec: str
    entry: registry.Resolved
    study: Study
    trials: tuple[dict[str, Any], ...]

    @property
    def optimizer(self) -> Optimizer:
        return self.entry.optimizer

    @property
    def needs_tuning(self) -> bool:
        """Whether there is anything to choose between."""
        return len(self.trials) > 1

    def lane(self, trial: Trial) -> Lane:
        """The trial as the engine trains it; its horizon counts gradient evaluations, the lane's counts steps."""
        return lane_of(
            self.optimizer, trial.hparams, self.optimizer.steps(trial.horizon), trial.seed
        )

    def trial(self, hparams: Mapping[str, Any], horizon: int, seed: int) -> Trial:
        return Trial(self.study.id, dict(hparams), horizon, seed)


@dataclass(frozen=True)
class Plan:
    """All of a sweep: each candidate's trials at each horizon on TUNING_SEED, then its winners on `seeds` fresh seeds."""

    task: Task
    candidates: tuple[Candidate, ...]
    horizons: tuple[int, ...]
    seeds: int
    shard: tuple[int, int] = (0, 1)

    def mine(self, jobs: Sequence[tuple[Candidate, Trial]]) -> list[tuple[Candidate, Trial]]:
        """This shard's slice: every n-th, from the i-th on."""
        return list(jobs)[self.shard[0] :: self.shard[1]]

    @property
    def tuning(self) -> list[tuple[Candidate, Trial]]:
        return [
            (e, e.trial(hparams, h, TUNING_SEED))
            for e in self.candidates
            if e.needs_tuning
            for h in self.horizons
            for hparams in e.trials
        ]

    @property
    def final_seeds(self) -> range:
        return range(TUNING_SEED + 1, TUNING_SEED + 1 + self.seeds)


def make_plan(
    opts: Sequence[str],
    task: str,
    horizons: Sequence[str],
    trials: int,
    seeds: int,
    learning_rates: Sequence[str],
    settings: Sequence[str],
    shard: str = "0/1",
    variation: Variation | Mapping[str, Any] | None = None,
) -> Plan:
    """Checks everything that was typed.

    Raises:
      UserError: at the first thing that is wrong.
    """
    if isinstance(variation, Mapping):  # from JSON
        variation = Variation(**variation)
    the_task = vary(catalogue.get(task), variation or Variation())
    rungs = parse_horizons(horizons, the_task)
    if trials < 1:
        raise UserError(f"--trials={trials} tries nothing: use 1 or more.")
    if seeds < 1:
        raise UserError(f"--seeds={seeds} leaves no final run: use 1 or more.")
    if list(opts) == ["all"]:
        opts = registry.builtins()
    if not opts:
        raise UserError(
            f"Nothing to run: name an optimizer, such as --opt=shampoo.\nBuilt in: {', '.join(registry.builtins())}. Your own: --opt=./my_opt.py"
        )
    entries = [resolve(spec) for spec in opts]
    names = [entry.optimizer.name for entry in entries]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"--opt names {repeated[0]!r} {names.count(repeated[0])} times: results are kept by name, so give one of them another."
        )
    written = parse_settings(learning_rates, settings)
    declared = sorted({name for entry in entries for name in entry.optimizer.defaults})
    for name in written:
        if name not in declared:
            raise UserError(
                f"No optimizer of this sweep has a hyperparameter {name!r}.{suggestion(name, declared)}\nTheirs: {', '.join(declared)}"
            )
    candidates = tuple(
        _candidate(spec, entry, the_task, trials, written)
        for spec, entry in zip(opts, entries, strict=True)
    )
    return Plan(the_task, candidates, rungs, seeds, parse_shard(shard))


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) of "i/n", with 0 <= i < n."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise UserError(
            f"--shard={text} is no slice: write --shard=i/n with i from 0 to n - 1, such as --shard=0/4."
        )
    return int(index), int(count)


def parse_horizons(horizons: Sequence[str], task: Task) -> tuple[int, ...]:
    """Steps of each rung; the first two of the task's ladder where none is given, all of it for "ladder"."""
    if not horizons:
        return task.horizons[:2]
    if list(horizons) == ["ladder"]:
        return task.horizons
    text = ",".join(horizons)
    try:
        rungs = tuple(int(h) for h in horizons)
    except ValueError:
        raise UserError(
            f"--horizons={text} are no whole numbers of steps: write --horizons=250,500 or --horizons=ladder."
        ) from None
    if any(h < 1 for h in rungs) or any(a >= b for a, b in itertools.pairwise(rungs)):
        fixed = ",".join(str(h) for h in sorted({h for h in rungs if h > 0})) or "250,500"
        raise UserError(
            f"--horizons={text} must be positive and rise from one to the next, without repeats: write --horizons={fixed}"
        )
    return rungs


def parse_settings(learning_rates: Sequence[str], settings: Sequence[str]) -> dict[str, list[str]]:
    """The values listed for each hyperparameter, as text; --lr=1e-2,2e-2 is --set lr=1e-2,2e-2."""
    written: dict[str, list[str]] = {"lr": list(learning_rates)} if learning_rates else {}
    for setting in settings:
        name, equals, values = setting.partition("=")
        if not (name and equals and values):
            raise UserError(
                f"--set {setting!r} is not understood: write --set name=value or --set name=value,value"
            )
        if name in written:
            raise UserError(
                f"Hyperparameter {name!r} is set twice: list its values once, --set {name}=value,value"
            )
        written[name] = values.split(",")
    return written


def cast(name: str, text: str, default: Any) -> Any:
    """The text as a value of the default's type."""
    try:
        if default is None:  # whatever number it is, else text
            return next((kind(text) for kind in (int, float) if _is(kind, text)), text)
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        value = type(default)(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
        return value
    except (ValueError, KeyError):
        kind = {bool: "true or false", int: "a whole number", float: "a finite number"}.get(
            type(default), "a value"
        )
        flag = f"--lr={text}" if name == "lr" else f"--set {name}={text}"
        raise UserError(
            f"{flag}: {text!r} is no value of {name!r}, which takes {kind} such as {default}."
        ) from None


def _is(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _candidate(
    spec: str,
    entry: registry.Resolved,
    task: Task,
    trials: int,
    written: Mapping[str, Sequence[str]],
) -> Candidate:
    opt = entry.optimizer
    listed = {
        name: [cast(name, text, opt.defaults[name]) for text in texts]
        for name, texts in written.items()
        if name in opt.defaults
    }
    space = {
        name: describe_domain(domain) for name, domain in opt.space.items() if name not in listed
    }
    study = Study(
        task.name,
        task.fingerprint(),
        opt.name,
        entry.source_sha256,
        space,
        _single(listed),
        versions(),
    )
    return Candidate(spec, entry, study, tuple(sample(opt.space, listed, trials)))


def describe_domain(domain: Domain) -> dict[str, Any]:
    """The domain as plain data: its kind and its bounds or values."""
    return {
        "kind": type(domain).__name__,
        **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(domain).items()},
    }


def _single(listed: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {
        name: values[0] if len(values) == 1 else list(values) for name, values in listed.items()
    }


def versions() -> dict[str, str]:
    """Versions of the packages that compute, and the platform: part of a study's identity."""
    import jax

    return {
        name: metadata.version(name) if name != "distill-bench" else _own_version()
        for name in _PACKAGES
    } | {"platform": jax.default_backend()}


def _own_version() -> str:
    from distill_bench import __version__

    return __version__


def environment() -> dict[str, Any]:
    """The machine and the versions, kept with each result."""
    import jax

    device = jax.devices()[0]
    return versions() | {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device.device_kind,
        "devices": jax.local_device_count(),
        "cores": os.cpu_count(),
    }


def resolve(spec: str) -> registry.Resolved:
    """The optimizer that was typed, from anywhere that `registry.resolve` view_specs.

    Raises:
      UserError: where there is none, or its file raises; with the file's own stack trace.
    """
    try:
        return registry.resolve(spec)
    except registry.UnknownOptimizer as error:
        raise UserError(str(error)) from None
    except Exception as error:  # whatever the plug-in's file raises
        path = str(Path(spec.partition(":")[0]).resolve())
        raise UserError(
            f"--opt={spec} cannot be imported; its own error:\n\n{own_traceback(traceback.format_exception(error), path)}"
        ) from None


def own_traceback(lines: Sequence[str], path: str) -> str:
    """The last lines of a formatted exception, from the first frame in the file `path` on."""
    text = "".join(lines).rstrip()
    text = text[max(text.rfind("Traceback (most recent call last)"), 0) :]
    frame = text.find(f'  File "{path}"')
    return text[frame:] if frame >= 0 else "\n".join(text.splitlines()[-12:])

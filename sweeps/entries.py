"""Leaderboard entries: one study with all of its trials, as a committed file.

    leaderboard/digits/shampoo.json

An entry holds runs, not conclusions: rows, speed-ups and ranks are computed from them, as from a store. Entries are other people's files:
each is checked against leaderboard/entry.schema.json before anything in it is believed, and nothing in it is ever executed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill_bench import task as tasks
from distill_bench.errors import UserError
from optimizers import registry
from sweeps.rows import finals, winner
from sweeps.store import Loaded, write_atomically
from sweeps.study import TUNING_SEED, Result, Study, Trial

SCHEMA = 2
REQUIRED_SEEDS = 5
REQUIRED_TRIALS = 8
REQUIRED_RUNGS = 3
MAX_BYTES = 4 << 20
_CHECKOUT = Path(__file__).resolve().parent.parent / "leaderboard"
_INSTALLED = Path(__file__).resolve().parent / "leaderboard_entries"
FOLDER = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
BASELINE = (FOLDER / "baseline.txt").read_text().strip()  # the optimizer whose curve speed-ups are measured on


class BadEntry(Exception):
    """The file is no entry; the message says why, in one line."""


@dataclass(frozen=True)
class Cost:
    """What the update rule alone costs on the task's student, measured in turn with the baseline's.

    update_ms, baseline_ms: milliseconds of one update; relative: their ratio; state_bytes_per_parameter: of the rule's state.
    """

    update_ms: float
    baseline_ms: float
    relative: float
    state_bytes_per_parameter: float


@dataclass(frozen=True)
class Entry:
    """A study that stands on the leaderboard.

    Attributes:
      study, results: what was run; tuning trials hold their end alone, finals their curves.
      curves: (horizon, seed) -> training losses of a final run, as (steps, means up to each of them).
      spec: how the optimizer was typed.
      sources: its file and those of optimizers/ that it imports: name -> text.
      environment: machine and versions.
      cost: None where it was not measured.
      path, sha256: the file, and the digest of its bytes.
    """

    study: Study
    results: tuple[Result, ...]
    curves: Mapping[tuple[int, int], tuple[tuple[int, ...], tuple[float, ...]]]
    spec: str
    sources: Mapping[str, str]
    environment: Mapping[str, Any]
    cost: Cost | None
    path: Path
    sha256: str

    @property
    def horizons(self) -> list[int]:
        return sorted({result.trial.horizon for result in self.results})


def check(loaded: Loaded) -> None:
    """Whether this study may be an entry.

    Raises:
      UserError: with all that speaks against it.
    """
    if found := _objections(loaded):
        raise UserError(f"{loaded.study.optimizer} ({loaded.folder}) is no entry yet:\n" + "\n".join(f"- {objection}" for objection in found))


def _objections(loaded: Loaded) -> list[str]:
    study, found = loaded.study, []
    task = tasks.CATALOGUE.get(study.task)
    if task is None or task.fingerprint() != study.fingerprint:
        return [f"it ran on another version of {study.task} ({study.fingerprint}): run it again here."]
    if study.fixed:
        found.append(f"{', '.join(study.fixed)} was set by hand (--lr, --set): declare it in the optimizer's file, so that the file says all.")
    found += [f"{path} cannot be read: {reason}" for path, reason in loaded.problems]
    rungs = _rungs(loaded)
    if rungs != task.horizons[: len(rungs)] or len(rungs) < REQUIRED_RUNGS:
        ladder = ",".join(map(str, task.horizons))
        ran = ", ".join(map(str, rungs)) or "none"
        found.append(f"its ladder is unfinished: it has {ran} of {ladder}; run them from the first on, {REQUIRED_RUNGS} or more: --horizons={ladder}")
    for horizon in rungs:
        here = [result for result in loaded.results if result.trial.horizon == horizon]
        tuned = sum(result.trial.seed == TUNING_SEED for result in here)
        best = winner(here, horizon)
        ran = len(finals(here, best)) if best else 0
        if study.space and tuned < REQUIRED_TRIALS:
            found.append(f"horizon {horizon} has {tuned} tuning trials of the {REQUIRED_TRIALS} or more that an entry needs: --trials={REQUIRED_TRIALS}")
        if best is None:
            found.append(f"horizon {horizon} has no trial that ended well.")
        elif ran < REQUIRED_SEEDS:
            found.append(f"horizon {horizon} has {ran} final runs of the {REQUIRED_SEEDS} or more that an entry needs: --seeds={REQUIRED_SEEDS}")
    return found


def _rungs(loaded: Loaded) -> tuple[int, ...]:
    """The task's rungs that the study ran; other horizons are no part of an entry."""
    ran = {result.trial.horizon for result in loaded.results}
    return tuple(horizon for horizon in tasks.get(loaded.study.task).horizons if horizon in ran)


def write(loaded: Loaded, cost: Cost | None, folder: Path = FOLDER) -> Path:
    """Writes the study's entry, in place of any earlier one of the same optimizer.

    Raises:
      UserError: where `check` does, or the entry would not fit its schema.
    """
    check(loaded)
    study = loaded.study
    entry = {
        "schema": SCHEMA,
        "study": asdict(study),
        "spec": loaded.spec,
        "sources": loaded.sources,
        "environment": loaded.environment,
        "cost": asdict(cost) if cost else None,
        "rungs": [_rung(loaded.results, horizon) for horizon in _rungs(loaded)],
    }
    path = folder / study.task / f"{study.optimizer}.json"
    content = _text(entry) + "\n"
    try:
        _validate(json.loads(content))
    except BadEntry as error:
        raise UserError(f"{study.optimizer} ({loaded.folder}) cannot be written as an entry: {error}.") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def _text(value: Any, indent: str = "\n") -> str:
    """JSON with what fits on a line, and each list of numbers, on one."""
    compact = json.dumps(value, allow_nan=False)
    if not isinstance(value, dict | list) or len(compact) < 160 or not any(isinstance(one, dict | list | str) for one in list(value)):
        return compact
    inner = indent + " "
    if isinstance(value, dict):
        return "{" + inner + f",{inner}".join(f"{json.dumps(name)}: {_text(one, inner)}" for name, one in value.items()) + indent + "}"
    return "[" + inner + f",{inner}".join(_text(one, inner) for one in value) + indent + "]"


def _rung(results: Sequence[Result], horizon: int) -> dict[str, Any]:
    best = winner(results, horizon)
    assert best  # check() saw to it
    tuned = sorted((r for r in results if r.trial.horizon == horizon and r.trial.seed == TUNING_SEED), key=lambda r: r.trial.id)
    return {
        "horizon": horizon,
        "winner": best.trial.hparams,
        "tuning": [{"hparams": r.trial.hparams, "status": r.status, "step": r.step, "final": _rounded(r.final)} for r in tuned],
        "finals": [
            {
                "seed": r.trial.seed,
                "status": r.status,
                "step": r.step,
                "points": [{"step": step, **_rounded(metrics)} for step, metrics in r.points],
                "curve": _rounded(_curve(r)),
            }
            for r in finals(results, best)
        ],
    }


def _curve(result: Result, points: int = 40) -> dict[str, list[Any]]:
    """Training losses averaged over stretches that grow with the step, up to `points` of them."""
    edges = np.unique(np.round(np.geomspace(1, max(len(result.losses), 1), points)).astype(int)) if result.losses else np.empty(0, int)
    losses = np.asarray(result.losses, float)
    means = [float(losses[low:high].mean()) for low, high in zip([0, *edges], edges, strict=False)]
    return {"step": edges.tolist(), "loss": [mean if np.isfinite(mean) else None for mean in means]}


def _rounded(value: Any) -> Any:
    """The same with nine significant digits, which name a float32 exactly."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


@functools.cache
def _validator() -> Callable[[Any], str | None]:
    """A function that tells what is wrong with an entry's content."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    schema = Draft202012Validator(json.loads((FOLDER / "entry.schema.json").read_text()))

    def wrong(content: Any) -> str | None:
        error = best_match(schema.iter_errors(content))
        return error and f"{error.json_path}: {error.message[:200]}"

    return wrong


def _validate(content: Any) -> None:
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise BadEntry(f"it is of schema {str(found)[:40]!r}, this version reads {SCHEMA}")
    if wrong := _validator()(content):
        raise BadEntry(wrong)


def read(path: Path) -> Entry:
    """The entry in a file.

    Raises:
      BadEntry: where it is none: no regular file, too large, no JSON, another schema, of a name that is not its file's.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise BadEntry("it is no regular file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadEntry(f"it has {size:,} bytes, an entry at most {MAX_BYTES:,}")
        raw = path.read_bytes()
        content = json.loads(raw.decode(), parse_constant=_refuse, object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        raise BadEntry(f"it cannot be read ({type(error).__name__}: {str(error)[:200]})") from None
    _validate(content)
    study = Study(**content["study"])
    if (path.parent.name, path.name) != (study.task, f"{study.optimizer}.json"):
        raise BadEntry(f"it says that it is {study.task}/{study.optimizer}.json")
    results, curves = _results(study, content["rungs"])
    cost = Cost(**content["cost"]) if content["cost"] else None
    return Entry(
        study,
        results,
        curves,
        content["spec"],
        content["sources"],
        content["environment"],
        cost,
        path,
        hashlib.sha256(raw).hexdigest(),
    )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _results(study: Study, rungs: Sequence[Mapping[str, Any]]) -> tuple[tuple[Result, ...], dict[tuple[int, int], Any]]:
    found, curves = [], {}
    for rung in rungs:
        horizon = rung["horizon"]
        for run in rung["tuning"]:
            points = ((run["step"], run["final"]),) if run["final"] else ()
            found.append(Result(Trial(study.id, run["hparams"], horizon, TUNING_SEED), run["status"], run["step"], points=points))
        for run in rung["finals"]:
            points = tuple((point["step"], {k: v for k, v in point.items() if k != "step"}) for point in run["points"])
            found.append(Result(Trial(study.id, rung["winner"], horizon, run["seed"]), run["status"], run["step"], points=points))
            curves[horizon, run["seed"]] = (tuple(run["curve"]["step"]), tuple(run["curve"]["loss"]))
    for result in found:
        if result.status == "ok" and not result.points:
            raise BadEntry(f"a run at horizon {result.trial.horizon} that ended well has no metrics")
    return tuple(found), curves


def inconsistencies(entry: Entry) -> list[str]:
    """What in an entry contradicts the rest of it, so that it was altered after it was made; nothing is run."""
    study, found = entry.study, []
    try:
        digest = registry.digest(entry.sources)
    except (SyntaxError, ValueError) as error:
        digest = f"none: {error}"
    if digest != study.source_sha256:
        found.append("its source files are not those that its digest names")
    for horizon in entry.horizons:
        here = [r for r in entry.results if r.trial.horizon == horizon]
        best, tried = winner(here, horizon), [r.trial.hparams for r in here if r.trial.seed == TUNING_SEED]
        if best is None or any(r.trial.hparams != best.trial.hparams for r in here if r.trial.seed != TUNING_SEED):
            found.append(f"horizon {horizon}: its final runs are not of the trial with the lowest probe loss")
        if tried and sorted(map(_plain, tried)) != sorted(map(_plain, _points(study, len(tried)))):
            found.append(f"horizon {horizon}: its trials are not the points that its space gives")
    return found


def _plain(hparams: Mapping[str, Any]) -> str:
    return json.dumps(_rounded(hparams), sort_keys=True)


def _points(study: Study, n: int) -> list[dict[str, Any]]:
    """The trials of the study's space, as sampling.sample gives them."""
    from optimizers import domains
    from sweeps.sampling import sample

    def domain(described: Mapping[str, Any]) -> domains.Domain:
        kind, settings = getattr(domains, described["kind"]), {k: v for k, v in described.items() if k != "kind"}
        return kind(*settings["values"]) if "values" in settings else kind(**settings)

    return sample({name: domain(described) for name, described in study.space.items()}, {}, n)


def load(folder: Path = FOLDER, names: Sequence[str] | None = None, only: str | None = None) -> tuple[list[Entry], list[str]]:
    """Entries of these tasks (all that this version has, by default), and a warning for each file that is none or cannot be compared with.

    only: the one optimizer that is wanted.
    """
    found, warnings = [], []
    for name in sorted(tasks.CATALOGUE) if names is None else names:
        for path in sorted((folder / name).glob(f"{only or '*'}.json")):
            try:
                entry = read(path)
            except BadEntry as error:
                warnings.append(f"{path} is not counted: {error}.")
                continue
            if entry.study.fingerprint != tasks.get(name).fingerprint():
                warnings.append(f"{path} is not counted: it is of another version of the task ({entry.study.fingerprint}).")
            else:
                found.append(entry)
    return found, warnings

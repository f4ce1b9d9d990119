"""Leaderboard entries: one study with all of its trials, as a committed file.

    leaderboard/digits/shampoo.json

An entry holds runs, not conclusions: rows, speed-ups and ranks are computed from its runs, as from
a store. Entries are other people's files. Each is checked against leaderboard/entry.schema.json
before it is used, and reading one never executes its code.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_bench.tasks import catalogue
from sweeps.board import identity, protocol
from sweeps.board.folder import BASELINE as BASELINE
from sweeps.board.folder import FOLDER as FOLDER
from sweeps.planning.sampling import parse_domain
from sweeps.planning.study import TUNING_SEED, Result, Study, Trial

SCHEMA = 4
MAX_BYTES = 4 << 20
METRICS = ("probe_loss", "heldout_kl", "test_kl", "agreement", "accuracy")
"""The metrics at the end of a final run, which entry.schema.json names."""


class BadEntry(Exception):
    """The file is not a valid entry; the message says why, in one line."""


@dataclass(frozen=True)
class Cost:
    """Cost of the update rule alone on the task's student, measured alternately with the baseline.

    Attributes:
      update_ms: time of one update in milliseconds.
      baseline_ms: time of one update of the baseline in milliseconds.
      relative: update_ms over baseline_ms.
      state_bytes_per_parameter: size of the rule's state in bytes per parameter.
      gradient_ms: time of the rest of a step: the teacher's answers and the student's gradient.
    """

    update_ms: float
    baseline_ms: float
    relative: float
    state_bytes_per_parameter: float
    gradient_ms: float


@dataclass(frozen=True)
class Entry:
    """A study on the leaderboard.

    Attributes:
      study: the optimizer, its search space and the task.
      results: all runs; tuning trials have their final metrics only, final runs their curves.
      curves: (horizon, seed) -> training losses of a final run, as (steps, mean loss up to each).
      spec: the optimizer as given to --opt.
      sources: name -> text of the optimizer's file and of the files in optimizers/ that it imports.
      environment: machine and versions.
      cost: cost of the update rule; None if it was not measured.
      path: the entry's file.
      sha256: digest of the file's bytes.
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


@functools.cache
def _validator() -> Callable[[Any], str | None]:
    """Returns a function that says what is wrong with an entry's content."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    schema = Draft202012Validator(json.loads((FOLDER / "entry.schema.json").read_text()))

    def find_error(content: Any) -> str | None:
        error = best_match(schema.iter_errors(content))
        return error and f"{error.json_path}: {error.message[:200]}"

    return find_error


def validate(content: Any) -> None:
    """Checks an entry's content against the schema.

    Raises:
      BadEntry: names the first error.
    """
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise BadEntry(f"it has schema {str(found)[:40]!r}, but this version reads {SCHEMA}")
    if error := _validator()(content):
        raise BadEntry(error)


def read(path: Path) -> Entry:
    """Reads and checks an entry.

    Raises:
      BadEntry: if it is not a regular file, too large, not JSON, does not fit the schema, has
        another name than its file, or lacks runs that an entry needs.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise BadEntry("it is not a regular file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BadEntry(f"it has {size:,} bytes, but an entry has at most {MAX_BYTES:,}")
        raw = path.read_bytes()
        content = json.loads(
            raw.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique_names
        )
    except (OSError, ValueError, RecursionError) as error:
        raise BadEntry(f"it cannot be read ({type(error).__name__}: {str(error)[:200]})") from None
    validate(content)
    study = Study(**content["study"])
    if (path.parent.name, path.name) != (study.task, f"{study.optimizer}.json"):
        raise BadEntry(f"its content is that of {study.task}/{study.optimizer}.json")
    _check_complete(study, content["rungs"])
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


def _check_complete(study: Study, rungs: Sequence[Mapping[str, Any]]) -> None:
    """Repeats the checks of `write_entry.check`, so that all entries are judged on the same runs.

    Raises:
      BadEntry: names the first missing or unexpected run.
    """
    horizons = [rung["horizon"] for rung in rungs]
    if study.task in catalogue.names():
        ladder = protocol.ladder(study.task, study.optimizer)
        if (
            len(horizons) < protocol.RUNGS
            or tuple(horizons) != ladder[: len(horizons)]
            or not all(isinstance(h, int) for h in horizons)
        ):
            raise BadEntry(
                f"its horizons {str(horizons)[:80]} are not the first {protocol.RUNGS} or more "
                f"of {', '.join(map(str, ladder))}"
            )
    for name, domain in study.space.items():
        if not _is_sound(domain):
            raise BadEntry(f"the domain of {name} in its space is not a valid range")
    expected = protocol.search(study, horizons).counts() if study.space else {}
    for rung in rungs:
        place, seeds = f"at horizon {rung['horizon']}", [run["seed"] for run in rung["finals"]]
        if (
            len(seeds) < protocol.SEEDS
            or seeds != list(range(TUNING_SEED + 1, len(seeds) + 1))
            or not all(isinstance(seed, int) for seed in seeds)
        ):
            raise BadEntry(f"{place} its final seeds are not 1 to {protocol.SEEDS} or more")
        if len(rung["tuning"]) != (count := expected.get(rung["horizon"], 0)):
            raise BadEntry(
                f"{place} it has {len(rung['tuning'])} tuning trials, but every entry has {count}"
            )
        for hparams in [rung["winner"], *(run["hparams"] for run in rung["tuning"])]:
            if not all(
                name in hparams and _contains(domain, hparams[name])
                for name, domain in study.space.items()
            ):
                raise BadEntry(f"{place} hyperparameters lie outside its space")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_sound(domain: Mapping[str, Any]) -> bool:
    if not all(_is_number(domain[bound]) for bound in ("low", "high") if bound in domain):
        return False
    try:
        parse_domain(domain)
    except (ValueError, TypeError):
        return False
    return True


def _contains(domain: Mapping[str, Any], value: Any) -> bool:
    """Whether a sound domain has the value."""
    if domain["kind"] == "Choice":
        return value in domain["values"]
    low, high = domain["low"], domain["high"]
    slack = 1e-9 * (high - low)  # platforms round differently
    return _is_number(value) and low - slack <= value <= high + slack


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has the same name twice")
    return found


def _results(
    study: Study, rungs: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Result, ...], dict[tuple[int, int], Any]]:
    found, curves = [], {}
    for rung in rungs:
        horizon = rung["horizon"]
        for run in rung["tuning"]:
            points = ((run["step"], run["final"]),) if run["final"] else ()
            found.append(
                Result(
                    Trial(study.id, run["hparams"], horizon, TUNING_SEED),
                    run["status"],
                    run["step"],
                    points=points,
                )
            )
        for run in rung["finals"]:
            points = tuple(
                (point["step"], {k: v for k, v in point.items() if k != "step"})
                for point in run["points"]
            )
            found.append(
                Result(
                    Trial(study.id, rung["winner"], horizon, run["seed"]),
                    run["status"],
                    run["step"],
                    points=points,
                )
            )
            curves[horizon, run["seed"]] = (
                tuple(run["curve"]["step"]),
                tuple(run["curve"]["loss"]),
            )
    for result in found:
        needed = METRICS[:1] if result.trial.seed == TUNING_SEED else METRICS
        if result.status == "ok" and not (result.points and {*needed} <= {*result.points[-1][1]}):
            raise BadEntry(f"a run at horizon {result.trial.horizon} has status ok but no metrics")
    return tuple(found), curves


def notice(folder: Path = FOLDER) -> str:
    """What every reader of the leaderboard in `folder` should know first; "" for nothing."""
    path = folder / "notice.txt"
    return " ".join(path.read_text(encoding="utf-8").split()) if path.is_file() else ""


def load(
    folder: Path = FOLDER, names: Sequence[str] | None = None, only: str | None = None
) -> tuple[list[Entry], list[str]]:
    """Loads the entries of some tasks, and a warning for each file that is not counted.

    Args:
      folder: the leaderboard's folder.
      names: names of tasks; None for all tasks.
      only: load only this optimizer; None for all optimizers.
    """
    found, warnings = [], []
    for name in sorted(catalogue.names()) if names is None else names:
        for path in sorted((folder / name).glob(f"{only or '*'}.json")):
            try:
                entry = read(path)
                study = entry.study
                if study.fingerprint != catalogue.get(name).fingerprint():
                    raise BadEntry(f"it ran on another version of the task ({study.fingerprint})")
                if reason := identity.objection(study, entry.spec, entry.sources):
                    raise BadEntry(reason)
                found.append(entry)
            except BadEntry as error:
                warnings.append(f"{path} is not counted: {error}.")
    return found, warnings

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_bench.tasks import catalogue
from sweeps.planning.study import TUNING_SEED, Result, Study, Trial

SCHEMA = 2
REQUIRED_SEEDS = 5
REQUIRED_TRIALS = 8
REQUIRED_RUNGS = 3
MAX_BYTES = 4 << 20
_CHECKOUT = Path(__file__).resolve().parents[2] / "leaderboard"
_INSTALLED = Path(__file__).resolve().parents[1] / "leaderboard_entries"
FOLDER = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
BASELINE = (
    (FOLDER / "baseline.txt").read_text().strip()
)  # the optimizer whose curve speed-ups are measured on


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


def validate(content: Any) -> None:
    """Checks an entry's content against its schema.

    Raises:
      BadEntry: at the first thing that is wrong.
    """
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
    validate(content)
    study = Study(**content["study"])
    if (path.parent.name, path.name) != (study.task, f"{study.optimizer}.json"):
        raise BadEntry(f"it says that it is {study.task}/{study.optimizer}.json")
    _check_whole(study, content["rungs"])
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


def _check_whole(study: Study, rungs: Sequence[Mapping[str, Any]]) -> None:
    """Refuses what `publish.check` would not have let through, so that no entry is judged on fewer or other runs than the others."""
    horizons = [rung["horizon"] for rung in rungs]
    if study.task in catalogue.names():
        ladder = catalogue.get(study.task).horizons
        if (
            len(horizons) < REQUIRED_RUNGS
            or tuple(horizons) != ladder[: len(horizons)]
            or not all(isinstance(h, int) for h in horizons)
        ):
            raise BadEntry(
                f"its horizons {str(horizons)[:80]} are not the first {REQUIRED_RUNGS} or more of {', '.join(map(str, ladder))}"
            )
    for rung in rungs:
        where, seeds = f"at horizon {rung['horizon']}", [run["seed"] for run in rung["finals"]]
        if (
            len(seeds) < REQUIRED_SEEDS
            or seeds != list(range(TUNING_SEED + 1, len(seeds) + 1))
            or not all(isinstance(seed, int) for seed in seeds)
        ):
            raise BadEntry(f"{where} its final seeds are not 1 to {REQUIRED_SEEDS} or more")
        if study.space and len(rung["tuning"]) < REQUIRED_TRIALS:
            raise BadEntry(
                f"{where} it has {len(rung['tuning'])} tuning trials of {REQUIRED_TRIALS} or more"
            )
        for hparams in [rung["winner"], *(run["hparams"] for run in rung["tuning"])]:
            if not all(
                name in hparams and _lies_in(domain, hparams[name])
                for name, domain in study.space.items()
            ):
                raise BadEntry(f"{where} hyperparameters lie outside its space")


def _lies_in(domain: Mapping[str, Any], value: Any) -> bool:
    if domain["kind"] == "Choice":
        return value in domain["values"]
    low, high = domain["low"], domain["high"]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in (low, high, value)):
        return False
    slack = 1e-9 * (high - low)  # a platform's rounding
    return (
        low < high and (domain["kind"] != "Log" or low > 0) and low - slack <= value <= high + slack
    )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in one object")
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
        if result.status == "ok" and not result.points:
            raise BadEntry(
                f"a run at horizon {result.trial.horizon} that ended well has no metrics"
            )
    return tuple(found), curves


def load(
    folder: Path = FOLDER, names: Sequence[str] | None = None, only: str | None = None
) -> tuple[list[Entry], list[str]]:
    """Entries of these tasks (all that this version has, by default), and a warning for each file that is none or cannot be compared with.

    only: the one optimizer that is wanted.
    """
    found, warnings = [], []
    for name in sorted(catalogue.names()) if names is None else names:
        for path in sorted((folder / name).glob(f"{only or '*'}.json")):
            try:
                entry = read(path)
            except BadEntry as error:
                warnings.append(f"{path} is not counted: {error}.")
                continue
            if entry.study.fingerprint != catalogue.get(name).fingerprint():
                warnings.append(
                    f"{path} is not counted: it is of another version of the task ({entry.study.fingerprint})."
                )
            else:
                found.append(entry)
    return found, warnings

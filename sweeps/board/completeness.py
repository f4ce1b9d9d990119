"""Whether an entry holds what every entry must: the protocol's runs, in a sound search space."""

from __future__ import annotations

import ast
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from distill_bench.tasks import catalogue
from optimizers.contract.domains import Choice, Domain
from sweeps.board import protocol
from sweeps.board.untrusted import BadFile
from sweeps.planning.sampling import parse_domain
from sweeps.planning.search import key
from sweeps.planning.study import TUNING_SEED, Study

_SLACK = 1e-9  # of a range: platforms round differently
_NARROWEST = 1e-9  # a range, relative to its larger bound


def check(study: Study, rungs: Sequence[Mapping[str, Any]]) -> None:
    """Repeats the checks of `write_entry.check`, so that all entries are judged on the same runs.

    Args:
      study: the entry's study.
      rungs: as in the entry's file, which fits the schema.

    Raises:
      BadFile: names the first missing or unexpected run or setting.
    """
    horizons = [rung["horizon"] for rung in rungs]
    if study.task in catalogue.names():
        ladder = protocol.ladder(study.task, study.optimizer)
        if (
            len(horizons) < protocol.RUNGS
            or tuple(horizons) != ladder[: len(horizons)]
            or not all(isinstance(h, int) for h in horizons)
        ):
            raise BadFile(
                f"its horizons {str(horizons)[:80]} are not the first {protocol.RUNGS} or more "
                f"of {', '.join(map(str, ladder))}"
            )
    space = {name: _domain(name, described) for name, described in study.space.items()}
    expected = protocol.search(study, horizons).counts() if space else {}
    for rung in rungs:
        _check_rung(rung, space, expected.get(rung["horizon"], 0))


def _domain(name: str, described: Mapping[str, Any]) -> Domain:
    try:
        domain = parse_domain(described)
    except (TypeError, ValueError):
        raise BadFile(f"the domain of {name} in its space is not a valid range") from None
    if not isinstance(domain, Choice):
        low, high = domain.low, domain.high
        if high - low < _NARROWEST * max(abs(low), abs(high)):
            raise BadFile(f"the domain of {name} in its space is too narrow")
    return domain


def _check_rung(rung: Mapping[str, Any], space: Mapping[str, Domain], trials: int) -> None:
    place, seeds = f"at horizon {rung['horizon']}", [run["seed"] for run in rung["finals"]]
    if (
        len(seeds) < protocol.SEEDS
        or seeds != list(range(TUNING_SEED + 1, len(seeds) + 1))
        or not all(isinstance(seed, int) for seed in seeds)
    ):
        raise BadFile(f"{place} its final seeds are not 1 to {protocol.SEEDS} or more")
    if len(rung["tuning"]) != trials:
        raise BadFile(
            f"{place} it has {len(rung['tuning'])} tuning trials, but every entry has {trials}"
        )
    if len({key(run["hparams"]) for run in rung["tuning"]}) < trials:
        raise BadFile(f"{place} two of its tuning trials have the same hyperparameters")
    for hparams in [rung["winner"], *(run["hparams"] for run in rung["tuning"])]:
        if hparams.keys() != space.keys():
            raise BadFile(f"{place} hyperparameters are not those of its space")
        if not all(_contains(domain, hparams[name]) for name, domain in space.items()):
            raise BadFile(f"{place} hyperparameters lie outside its space")
    for run in rung["finals"]:
        if len(run["curve"]["step"]) != len(run["curve"]["loss"]):
            raise BadFile(f"{place} a training curve has not one loss for each step")
        for steps in (run["curve"]["step"], [point["step"] for point in run["points"]]):
            whole = all(isinstance(step, int) for step in steps)
            rising = all(a < b for a, b in itertools.pairwise([*steps, rung["horizon"] + 1]))
            if not (whole and rising):
                raise BadFile(f"{place} the steps of a curve do not rise to at most its horizon")


def _contains(domain: Domain, value: Any) -> bool:
    """Whether a domain has the value."""
    if isinstance(domain, Choice):
        return value in domain.values
    if isinstance(value, bool):
        return False
    try:
        return -_SLACK <= domain.fraction(value) <= 1 + _SLACK
    except (TypeError, ValueError):  # no number, or one that has no place on the domain's scale
        return False


def check_sources(sources: Mapping[str, str]) -> None:
    """Checks that an entry's sources are Python. Runs nothing.

    Raises:
      BadFile: names the first file that Python does not read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # words in other people's code
        for name, text in sources.items():
            try:
                ast.parse(text)
            except (SyntaxError, ValueError):
                raise BadFile(f"its source {name} is not Python") from None
            except (RecursionError, MemoryError):
                raise BadFile(f"its source {name} is nested too deeply") from None

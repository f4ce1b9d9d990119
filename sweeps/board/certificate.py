"""The validity certificate in words and as plain data, for every place that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sweeps.planning.study import TUNING_SEED, Result
from sweeps.results.validity import Certificate, Concordance, Run

_NAMES = {"agreement": "agreement", "accuracy": "accuracy"}


def final_runs(optimizer: str, results: Iterable[Result]) -> list[Run]:
    """An optimizer's final runs that ended well."""
    return [
        Run(optimizer, result.trial.horizon, result.trial.seed, result.final)
        for result in results
        if result.final and result.trial.seed != TUNING_SEED
    ]


def sentences(found: Certificate) -> list[str]:
    """What the certificate says: what is certified, the replicate, and what is reported only."""
    if found.lacking:
        return [f"No certificate: {found.lacking}."]
    said = []
    for c in found.metrics:
        if c.role == "test":
            nothing = "; the interval includes 0, so nothing is shown yet" if c.low <= 0 else ""
            said.append(
                f"A lower probe loss meant a lower KL on clean test images in {c.alike:.0%} of "
                f"{found.pairs:,} pairs of runs near the best of their horizon: Kendall's tau "
                f"{tau(c)} over {found.runs:,} runs of {found.optimizers} optimizers"
                f"{nothing}.{_halves(c)}"
            )
        elif c.role == "replicate":
            said.append(
                "Held-out KL is a replicate, the same measurement on other images, and no "
                f"independent test: tau {tau(c)}.{_halves(c)}"
            )
    if reported := [_reported(c) for c in found.metrics if c.role == "reported"]:
        said.append(f"Not certified: {'; '.join(reported)}.")
    return said


def tau(c: Concordance) -> str:
    """Kendall's tau with its interval."""
    return f"{c.tau:.2f} [{c.low:.2f}, {c.high:.2f}]"


def _halves(c: Concordance) -> str:
    if c.between_halves is None:
        return ""
    noise = f"; this noise allows about {c.ceiling:.2f}" if c.ceiling is not None else ""
    return (
        f" With each averaged over its own half of the seeds, tau is {c.between_halves:.2f}{noise}."
    )


def _reported(c: Concordance) -> str:
    own = (
        f", {c.reliability:.2f} with itself between halves of the seeds"
        if c.reliability is not None
        else ""
    )
    return f"{_NAMES[c.metric]}, tau {tau(c)}{own}"


def as_json(found: Certificate) -> dict[str, Any]:
    """The certificate as JSON data, with its sentences."""
    return asdict(found) | {"sentences": sentences(found)}

"""Draws points of a search space. Pure, so that any machine can draw any slice of them."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from optimizers.contract.domains import Choice, Decay, Domain, Log, Uniform


def spread(dimensions: int, n: int, scramble: str) -> np.ndarray:
    """The first `n` points [n, dimensions] of a scrambled Sobol sequence in the unit cube.

    scramble: any text; each gives another sequence, and more points continue the same one.
    """
    from scipy.stats import qmc

    seed = int.from_bytes(hashlib.sha256(scramble.encode()).digest()[:8], "big")
    sobol = qmc.Sobol(dimensions, scramble=True, rng=seed)
    return sobol.random_base2(max(0, math.ceil(math.log2(max(n, 1)))))[:n]


def combinations(listed: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values listed for some hyperparameters."""
    return [
        dict(zip(listed, values, strict=True)) for values in itertools.product(*listed.values())
    ]


def at(space: Mapping[str, Domain], point: Sequence[float]) -> dict[str, Any]:
    """The hyperparameters at a point of the unit cube, in the order of the space."""
    return {
        name: domain.at(float(u)) for (name, domain), u in zip(space.items(), point, strict=True)
    }


def fractions(space: Mapping[str, Domain], hparams: Mapping[str, Any]) -> list[float]:
    """The point of the unit cube for these hyperparameters: the inverse of `at`."""
    return [domain.fraction(hparams[name]) for name, domain in space.items()]


def describe_domain(domain: Domain) -> dict[str, Any]:
    """The domain as plain data: its kind and its bounds or values."""
    return {
        "kind": type(domain).__name__,
        **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(domain).items()},
    }


def parse_domain(described: Mapping[str, Any]) -> Domain:
    """The inverse of `describe_domain`.

    Raises:
      ValueError: if this version knows no such kind of domain.
    """
    kinds = {kind.__name__: kind for kind in (Log, Decay, Uniform, Choice)}
    if (kind := kinds.get(described["kind"])) is None:
        raise ValueError(f"unknown kind of domain {described['kind']!r}")
    settings = {name: value for name, value in described.items() if name != "kind"}
    return kind(*settings["values"]) if "values" in settings else kind(**settings)

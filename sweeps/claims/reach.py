"""Claims that the order of optimizers reaches further: long runs, other tasks, large models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

from sweeps.board import across, external
from sweeps.claims.finding import Finding, Verdict
from sweeps.claims.measures import Boards, compared, source
from sweeps.results import orders
from sweeps.results.orders import Agreement

CHANCE = 0.05  # a larger probability of agreeing by chance decides nothing


def length(boards: Boards) -> Finding:
    """Whether the order at the shortest horizon is that at the longest."""
    found, against = {}, []
    for task, entries in boards.items():
        board = compared(entries)
        shared = [
            h
            for h in board.shared_horizons
            if all((e.study.optimizer, h) in board.by_name for e in entries)
        ]
        if len(shared) < 2 or len(entries) < 2:
            continue
        short, long = shared[0], shared[-1]
        one = orders.compare(board.rung_order(short), board.rung_order(long))
        found[f"{task}, {short:,} and {long:,} steps"] = one
        places = (f"at {short:,} steps on {task}", f"at {long:,}")
        against += across.contradictions(one, *places, by="loss")
    return _of_orders(
        "length",
        "The order of optimizers in short runs is their order in long ones.",
        "in short runs and stand the same way in long ones",
        found,
        against,
        boards,
        "No task has two optimizers with two rungs in common.",
    )


def tasks(boards: Boards) -> Finding:
    """Whether the order on one task is that on another."""
    found, against = {}, []
    of_task = {task: compared(entries).order() for task, entries in boards.items() if entries}
    for first, second in combinations(of_task, 2):
        one = orders.compare(of_task[first], of_task[second])
        found[f"{first} and {second}"] = one
        against += across.contradictions(one, f"on {first}", f"on {second}")
    return _of_orders(
        "tasks",
        "The order of optimizers on digits is their order on fashion.",
        "on the first task and stand the same way on the second",
        found,
        against,
        boards,
        "Only one task has entries.",
    )


def published(boards: Boards) -> Finding:
    """Whether the order on the boards is that of published results at scale."""
    found = [
        one
        for task, entries in boards.items()
        if entries
        for one in external.compare(task, compared(entries).order(), external.load())
    ]
    taus = [tau for one in found for tau in one["taus"]]
    settings = [s for one in found for s in one["settings"]]
    kept, separated = (sum(s[key] for s in settings) for key in ("kept", "separated"))
    text = "; ".join(
        f"{one['kept']} of {one['separated']} of {one['task']} ({one['cite']})"
        for one in found
        if one["separated"]
    )
    verdict: Verdict = "not known yet"
    if taus:
        share = kept / separated if separated else 0.0
        verdict = (
            "holds"
            if share == 1 and fmean(taus) > 0.5
            else "holds in part"
            if share > 0.5 and fmean(taus) > 0
            else "does not hold here"
        )
    return Finding(
        "published",
        "The order here is the order that others published for large models.",
        verdict,
        f"Pairs that differ significantly here and stand the same way there: {text}."
        if text
        else "No published result has two optimizers that a leaderboard separates.",
        [_PUBLISHED, *map(_published_row, found)] if found else (),
        [line for one in found for line in one["contradictions"]],
        "every pair that differs significantly here stands the same way in every setting and the "
        "mean tau is above 0.5",
        "A *setting* is one table of results, such as those of a model's size and number of "
        "tokens. *Tau* is the mean over settings with four or more optimizers in common; *among "
        "themselves* is that of two settings of the publication. Published figures with their "
        "sources: [docs/external](external). Search spaces were fixed before these were read; "
        f"nothing is chosen by them. {source(boards)}",
    )


_PUBLISHED = [
    "published",
    "task",
    "optimizers",
    "settings",
    "tau (lowest to highest)",
    "among themselves",
    "pairs kept",
]


def _published_row(one: Mapping[str, Any]) -> list[str]:
    taus, own = one["taus"], one["repeatability"]
    return [
        one["cite"],
        one["task"],
        str(one["optimizers"]),
        str(len(one["settings"])),
        f"{fmean(taus):.2f} ({min(taus):.2f} to {max(taus):.2f})" if taus else "-",
        f"{own:.2f}" if own is not None else "-",
        f"{one['kept']} of {one['separated']}",
    ]


def _of_orders(
    name: str,
    claim: str,
    where: str,
    found: Mapping[str, Agreement],
    against: Sequence[str],
    boards: Boards,
    otherwise: str,
) -> Finding:
    """A claim that two orders agree.

    Args:
      where: in which place pairs differ, and in which they stand the same way.
      found: the places -> how their orders agree.
      otherwise: the text if there are fewer than two orders.
    """
    text = "; ".join(
        f"{one.kept} of {one.separated} ({places}{_tau(one)})" for places, one in found.items()
    )
    return Finding(
        name,
        claim,
        _verdict([*found.values()]),
        f"Pairs that differ significantly {where}: {text}." if text else otherwise,
        [_AGREEMENT, *(_row(*one) for one in found.items())] if found else (),
        against,
        "every such pair stands the same way, and chance explains no agreement (six optimizers or "
        "more)",
        "*If equal*: the tau of two repetitions of everything, on average, if the true orders are "
        "the same. *By chance*: the "
        f"probability that unconnected orders agree so well. {source(boards)}",
    )


_AGREEMENT = ["orders", "optimizers", "Kendall's tau", "if equal", "by chance", "pairs kept"]


def _tau(found: Agreement) -> str:
    return "" if found.tau is None else f"; Kendall's tau {_span(found)}"


def _span(found: Agreement) -> str:
    interval = f" [{found.interval[0]:.2f}, {found.interval[1]:.2f}]" if found.interval else ""
    return f"{found.tau:.2f}{interval}"


def _row(name: str, found: Agreement) -> list[str]:
    return [
        name,
        str(len(found.optimizers)),
        "-" if found.tau is None else _span(found),
        "-" if found.ceiling is None else f"{found.ceiling:.2f}",
        "-" if found.chance is None else f"{found.chance:.2g}",
        f"{found.kept} of {found.separated}",
    ]


def _verdict(agreements: Sequence[Agreement]) -> Verdict:
    """Holds if every significant pair is kept and chance is unlikely; in part if most are, or if
    there are too few optimizers for an interval."""
    known = [(one, one.chance) for one in agreements if one.chance is not None]
    kept, separated = (sum(getattr(one, n) for one, _ in known) for n in ("kept", "separated"))
    likely = [chance <= CHANCE for _, chance in known]
    if separated and kept <= separated / 2:
        return "does not hold here"
    if not known or not any(likely):
        return "not known yet"
    enough = all(one.interval for one, _ in known)
    return "holds" if enough and all(likely) and kept == separated else "holds in part"

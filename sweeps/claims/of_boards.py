"""Claims that the leaderboards' entries test; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from statistics import fmean

from distill_bench.tasks import catalogue
from sweeps.board import across, certificate, external, wall_clock
from sweeps.board.entries import BASELINE, Entry
from sweeps.claims.finding import Finding, Verdict
from sweeps.claims.measures import at_end, compared, geometric, ratio
from sweeps.claims.named import NAMED
from sweeps.results import orders
from sweeps.results.orders import Agreement
from sweeps.results.validity import certify

Boards = Mapping[str, Sequence[Entry]]
"""Task -> its entries."""
UNSEEN = {"heldout_kl": "held-out KL", "test_kl": "clean-image KL"}
SHAMPOO: str = NAMED["claimed"]["optimizer"]
CLAIMED: float = NAMED["claimed"]["speedup"]
CHANCE = 0.05  # a larger probability of agreeing by chance decides nothing


def _source(boards: Boards) -> str:
    counted = [f"{len(entries)} of {task}" for task, entries in boards.items() if entries]
    return f"From the leaderboards' entries: {', '.join(counted)}."


def patience(boards: Boards) -> Finding:
    """Whether losses on unseen images fall with every doubling of the steps."""
    table = [["optimizer", "task", "metric", "shortest", "longest", "smallest fall per doubling"]]
    falls, firm, slowest = 0, 0, ("", 0.0)
    for task, entries in boards.items():
        for entry in entries:
            rungs = entry.horizons
            for metric, label in UNSEEN.items():
                values = [at_end(entry.results, h, metric) for h in rungs]
                steps = [ratio(b, a) for a, b in pairwise(values)]
                least = max(steps, key=lambda one: one.value)
                falls += sum(one.value < 1 for one in steps)
                firm += sum(one.high < 1 for one in steps)
                if least.value > slowest[1]:
                    slowest = (f"{entry.study.optimizer}'s {label} on {task}", least.value)
                table.append(
                    [
                        entry.study.optimizer,
                        task,
                        label,
                        f"{geometric(values[0]):.4f} at {rungs[0]:,}",
                        f"{geometric(values[-1]):.4f} at {rungs[-1]:,}",
                        str(least),
                    ]
                )
    count = sum(2 * (len(e.horizons) - 1) for entries in boards.values() for e in entries)
    verdict: Verdict = "not known yet"
    if count:
        verdict = (
            "holds"
            if firm == count
            else "holds in part"
            if falls > count / 2
            else "does not hold here"
        )
    found = (
        f"Of {count} doublings (an optimizer's rung over the one below, two metrics), {falls} "
        f"lower the mean, {firm} of them significantly."
    )
    if slowest[0] and firm < count:
        found += f" The smallest gain is {slowest[0]}, times {slowest[1]:.3f}."
    return Finding(
        "patience",
        "A longer run gives a better student on unseen images.",
        verdict,
        found,
        table,
        _source(boards),
    )


def quarter(boards: Boards) -> Finding:
    """Whether Shampoo needs a quarter of the baseline's steps, as the paper says."""
    table = [["task", "steps", "speed-up in steps", "in time, here", "in time, paper's networks"]]
    spans, texts = [], []
    for task, entries in boards.items():
        entry = next((e for e in entries if e.study.optimizer == SHAMPOO), None)
        board = compared(entries)
        overall = board.overall(SHAMPOO) if entry else None
        if entry is None or overall is None or overall.interval is None:
            continue
        here = paper = None
        if entry.cost is not None:
            of = catalogue.get(task)
            here = wall_clock.per_step(entry.cost, of)
            paper = wall_clock.per_step(entry.cost, of, wall_clock.paper_task())
        gains = {f"{h:,}": board.speedup(board.by_name[SHAMPOO, h]) for h in entry.horizons}
        for steps, gain in {**gains, "all together": overall}.items():
            if gain is not None:
                times = (f"{gain.value / x:.2f}x" if x else "-" for x in (here, paper))
                table.append([task, steps, str(gain), *times])
        spans.append(overall.interval)
        texts.append(f"{overall} on {task}, over {len(entry.horizons)} horizons")
    verdict: Verdict = "not known yet"
    if spans:
        below = [high < CLAIMED for _, high in spans]
        verdict = "does not hold here" if all(below) else "holds in part" if any(below) else "holds"
    return Finding(
        "quarter",
        f"Shampoo needs a quarter of the steps ({CLAIMED:g}x, as the paper says of Adam).",
        verdict,
        f"Speed-up over {BASELINE}, tuned with four times the trials: {'; '.join(texts)}."
        if texts
        else "Shampoo has no entry.",
        table if spans else (),
        _source(boards) + " Time for the paper's networks is computed from parameters and "
        "multiplications, not measured.",
    )


def validity(boards: Boards) -> Finding:
    """Whether a lower training loss means a lower KL on clean test images."""
    table = [["task", "optimizers", "pairs of runs", "Kendall's tau", "in the same order"]]
    lows, texts = [], []
    for task, entries in boards.items():
        runs = [
            run for e in entries for run in certificate.final_runs(e.study.optimizer, e.results)
        ]
        found = certify(runs)
        texts += [f"{task}: {certificate.sentences(found)[0]}"]
        if found.metrics:
            one = found.metrics[0]
            lows.append(one.low)
            table.append(
                [
                    task,
                    str(found.optimizers),
                    f"{found.pairs:,}",
                    f"{one.tau:.2f} [{one.low:.2f}, {one.high:.2f}]",
                    f"{one.alike:.0%}",
                ]
            )
    verdict: Verdict = "not known yet"
    if lows:
        verdict = (
            "holds" if min(lows) > 0 else "holds in part" if max(lows) > 0 else "not known yet"
        )
    return Finding(
        "validity",
        "Where no student can overfit, a lower training loss means better generalization.",
        verdict,
        " ".join(texts),
        table if lows else (),
        _source(boards),
    )


def length(boards: Boards) -> Finding:
    """Whether the order at the shortest horizon is that at the longest."""
    table, agreements = [_AGREEMENT], []
    texts = []
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
        found = orders.compare(board.rung_order(short), board.rung_order(long))
        agreements.append(found)
        table.append(_row(f"{task}: {short:,} and {long:,} steps", found))
        texts += across.describe(found, f"at {short:,} steps ({task})", f"at {long:,}", "loss")
    return Finding(
        "length",
        "The order of optimizers in short runs is their order in long ones.",
        _verdict(agreements),
        " ".join(texts) or "No task has two optimizers with two rungs in common.",
        table if agreements else (),
        _source(boards),
    )


def tasks(boards: Boards) -> Finding:
    """Whether the order on one task is that on another."""
    table, agreements, texts = [_AGREEMENT], [], []
    of_task = {task: compared(entries).order() for task, entries in boards.items() if entries}
    for first, second in combinations(of_task, 2):
        found = orders.compare(of_task[first], of_task[second])
        agreements.append(found)
        table.append(_row(f"{first} and {second}", found))
        texts += across.describe(found, f"on {first}", f"on {second}")
    return Finding(
        "tasks",
        "The order of optimizers on digits is their order on fashion.",
        _verdict(agreements),
        " ".join(texts) or "Only one task has entries.",
        table if agreements else (),
        _source(boards),
    )


def published(boards: Boards) -> Finding:
    """Whether the order on the boards is that of published results at scale."""
    table = [["task", "published", "setting", "optimizers", "Kendall's tau", "pairs kept"]]
    texts, settings = [], []
    for task, entries in boards.items():
        if not entries:
            continue
        for one in external.compare(task, compared(entries).order(), external.load()):
            texts += one["sentences"]
            settings += one["settings"]
            table += [
                [
                    task,
                    one["cite"],
                    s["setting"],
                    str(len(s["optimizers"])),
                    "-" if s["tau"] is None else f"{s['tau']:.2f}",
                    f"{s['kept']} of {s['separated']}",
                ]
                for s in one["settings"]
            ]
    taus = [
        s["tau"]
        for s in settings
        if len(s["optimizers"]) >= external.FEWEST and s["tau"] is not None
    ]
    kept, separated = (sum(s[key] for s in settings) for key in ("kept", "separated"))
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
        " ".join(texts) or "No published result shares two optimizers with a leaderboard.",
        table if settings else (),
        "Published figures with their sources: [docs/external](external). Search spaces were fixed "
        f"before these were read; nothing is chosen by them. {_source(boards)}",
    )


_AGREEMENT = ["orders", "optimizers", "Kendall's tau", "95 % interval", "by chance", "pairs kept"]


def _row(name: str, found: Agreement) -> list[str]:
    return [
        name,
        str(len(found.optimizers)),
        "-" if found.tau is None else f"{found.tau:.2f}",
        f"{found.interval[0]:.2f} to {found.interval[1]:.2f}" if found.interval else "-",
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


CLAIMS: Mapping[str, Callable[[Boards], Finding]] = {
    "patience": patience,
    "quarter": quarter,
    "validity": validity,
    "length": length,
    "tasks": tasks,
    "published": published,
}

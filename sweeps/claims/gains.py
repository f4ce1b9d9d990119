"""Claims about single optimizers on the boards: what longer runs, Shampoo and lower loss gain."""

from __future__ import annotations

from itertools import pairwise, product

from distill_bench.tasks import catalogue
from sweeps.board import certificate, wall_clock
from sweeps.board.entries import BASELINE
from sweeps.claims.finding import Finding, Verdict
from sweeps.claims.measures import Boards, Ratio, at_end, compared, ratio, source
from sweeps.claims.named import NAMED
from sweeps.results.validity import NEAR, Concordance, certify

UNSEEN = {"heldout_kl": "held-out KL", "test_kl": "clean-image KL"}
SHAMPOO: str = NAMED["claimed"]["optimizer"]
CLAIMED: float = NAMED["claimed"]["speedup"]


def patience(boards: Boards) -> Finding:
    """Whether losses on unseen images fall with every doubling of the steps."""
    table = [["task", "metric", "doublings", "lower", "significantly", "largest ratio", "whose"]]
    every: list[Ratio] = []
    for task, metric in product([task for task in boards if boards[task]], UNSEEN):
        steps = [
            (
                ratio(at_end(entry.results, long, metric), at_end(entry.results, short, metric)),
                f"{entry.study.optimizer}, {short:,} to {long:,}",
            )
            for entry in boards[task]
            for short, long in pairwise(entry.horizons)
        ]
        least, whose = max(steps, key=lambda step: step[0].value)
        found = [step for step, _ in steps]
        every += found
        table.append(
            [
                task,
                UNSEEN[metric],
                str(len(steps)),
                str(sum(one.value < 1 for one in found)),
                str(sum(one.high < 1 for one in found)),
                str(least),
                whose,
            ]
        )
    count, falls = len(every), sum(one.value < 1 for one in every)
    firm = sum(one.high < 1 for one in every)
    verdict: Verdict = "not known yet"
    if count:
        verdict = (
            "holds"
            if firm == count
            else "holds in part"
            if falls > count / 2
            else "does not hold here"
        )
    return Finding(
        "patience",
        "A longer run gives a better student on unseen images.",
        verdict,
        f"Of {count} doublings (an optimizer's rung over the one below, two metrics), {falls} "
        f"lower the mean, {firm} of them significantly.",
        table if count else (),
        rule="every doubling lowers both metrics significantly",
        how=f"*Ratio*: the metric at the end of a run over that of a run half as long. "
        f"{source(boards)}",
    )


def quarter(boards: Boards) -> Finding:
    """Whether Shampoo needs a quarter of the baseline's steps, as the paper says."""
    table = [
        [
            "task",
            "steps",
            "speed-up in steps",
            "in time, here",
            "in time, paper's networks (estimated)",
        ]
    ]
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
        rule=f"no interval ends below {CLAIMED:g}",
        how=source(boards) + " Time for the paper's networks is computed from parameters and "
        "multiplications, not measured.",
    )


def validity(boards: Boards) -> Finding:
    """Whether a lower training loss means a lower KL on clean test images."""
    table = [
        ["task", "optimizers", "pairs of runs", "Kendall's tau", "in the same order", "by halves"]
    ]
    lows, texts = [], []
    for task, entries in boards.items():
        runs = [
            run for e in entries for run in certificate.final_runs(e.study.optimizer, e.results)
        ]
        found = certify(runs)
        if not found.metrics:
            texts.append(f"{found.lacking} on {task}")
            continue
        one = found.metrics[0]
        lows.append(one.low)
        tau, alike = certificate.tau(one), f"{one.alike:.0%}"
        texts.append(f"{alike} on {task} (Kendall's tau {tau}, {found.optimizers} optimizers)")
        pairs, halves = f"{found.pairs:,}", _halves(one)
        table.append([task, str(found.optimizers), pairs, tau, alike, halves])
    verdict: Verdict = "not known yet"
    if lows:
        verdict = (
            "holds" if min(lows) > 0 else "holds in part" if max(lows) > 0 else "not known yet"
        )
    return Finding(
        "validity",
        "Where no student can overfit, a lower training loss means better generalization.",
        verdict,
        "Pairs of runs near the best of their horizon in which the one with the lower probe loss "
        f"has the lower KL on clean test images: {'; '.join(texts)}.",
        table if lows else (),
        rule="tau is significantly above 0 on every task",
        how=f"*Near the best*: with a loss of at most {NEAR:g} times the lowest of the horizon; "
        "optimizers without such runs do not count. *By halves*: tau with each of the two averaged "
        "over its own half of the seeds, and what it could be with this noise if both measured the "
        f"same. Accuracy follows the loss less closely, see the leaderboard. {source(boards)}",
    )


def _halves(one: Concordance) -> str:
    if one.between_halves is None:
        return "-"
    ceiling = f" of at most {one.ceiling:.2f}" if one.ceiling is not None else ""
    return f"{one.between_halves:.2f}{ceiling}"

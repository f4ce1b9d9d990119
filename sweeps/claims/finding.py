"""What was found when a claim was tested: plain data, as a file and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from distill_bench.files import write_atomically

Verdict = Literal["holds", "holds in part", "does not hold here", "not known yet"]
Table = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Finding:
    """What was found about one claim.

    Attributes:
      name: short name of the claim, as --claim takes it.
      claim: what is claimed, in one sentence.
      verdict: whether it holds.
      found: the figures behind the verdict, with n and intervals, in a sentence or two, which
        README may quote.
      table: rows of cells, the column names first; () for none.
      contradictions: what speaks against the claim, one sentence each.
      rule: when the claim holds.
      how: where the figures come from: a command, or which entries.
      environment: versions and machine; empty if the figures come from entries, which have theirs.
      seconds: how long the runs took here; 0 if there were none.
    """

    name: str
    claim: str
    verdict: Verdict
    found: str
    table: Table = ()
    contradictions: Sequence[str] = ()
    rule: str = ""
    how: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read(folder: Path) -> dict[str, Finding]:
    """Name -> finding, of those that are in a folder."""
    found = [Finding(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    return {one.name: one for one in found}


def write(folder: Path, finding: Finding) -> None:
    """Writes a finding to `folder`/<name>.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{finding.name}.json", finding.to_json())


INTRODUCTION = """\
# What the small tasks show, and what they do not

Each claim is tested by a command: `python sweeps/evidence.py --claim=NAME` measures it again and
writes this page. Intervals are 95 %. A verdict follows a rule, which stands with the claim. *Holds
in part*: more speaks for the claim than against it, or it holds for too few optimizers (fewer than
six). *Does not hold here*: as much speaks against it, or more. *Not known yet*: the figures decide
nothing. The files in `docs/evidence/` hold the same as JSON.
"""


def markdown(findings: Sequence[Finding]) -> str:
    """The page: a summary of all findings, then each of them."""
    summary = [["claim", "verdict"], *([f"[{x.claim}](#{x.name})", x.verdict] for x in findings)]
    return "\n".join([INTRODUCTION, *_table(summary), "", *map(_section, findings)])


BEGIN = "<!-- evidence: python sweeps/evidence.py --claim=boards --readme=README.md -->"
END = "<!-- /evidence -->"
QUOTED = ("length", "validity", "quarter")  # by README


def quoted(findings: Mapping[str, Finding]) -> str:
    """The findings that README quotes, as a list."""
    shown = [findings[name] for name in QUOTED if name in findings]
    return "\n".join(
        f"- *{x.claim}* [{x.verdict.capitalize()}](docs/evidence.md#{x.name}). {x.found}"
        for x in shown
    )


def _section(x: Finding) -> str:
    lines = [f"## {x.name}", "", f"**{x.claim}** {x.verdict.capitalize()}. {x.found}", ""]
    if x.table:
        lines += [*_table(x.table), ""]
    if x.contradictions:
        lines += ["Against it:", "", *(f"- {one}" for one in x.contradictions), ""]
    took = f" It took {_duration(x.seconds)}." if x.seconds else ""
    where = ", ".join(f"{name} {value}" for name, value in sorted(x.environment.items()))
    rule = f"It holds if {x.rule}. " if x.rule else ""
    lines += [f"{rule}{x.how}{took}{f' ({where})' if where else ''}", ""]
    return "\n".join(lines)


def _table(rows: Table) -> list[str]:
    head, *body = rows
    return [
        f"| {' | '.join(cells)} |" for cells in (head, ["---"] + ["---:"] * (len(head) - 1), *body)
    ]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if not minutes:
        return f"{seconds:.0f} s"
    return f"{hours} h {rest} min" if hours else f"{minutes} min"

"""A whole sweep as one value. It crosses a pipe to the worker as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from distill_bench.tasks.variation import Variation
from distill_bench.training.lane_layout import LayoutOptions
from sweeps.execution.multihost import Hosts
from sweeps.execution.resources import Resources
from sweeps.planning.request import PlanRequest


@dataclass(frozen=True)
class Fault:
    """Why an optimizer ended its process, and the status that its trials get."""

    status: Literal["crashed", "timeout"]
    detail: str


@dataclass(frozen=True)
class Faults:
    """What went wrong in earlier processes of the same sweep.

    Attributes:
      alone: optimizers to run by themselves, because one of them may have ended a process.
      dead: optimizers not to run again.
    """

    alone: frozenset[str] = frozenset()
    dead: Mapping[str, Fault] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """A sweep to run.

    Attributes:
      plan: what to train.
      outdir: folder of the results.
      resources: what to train it with.
      faults: what earlier processes of the sweep died of.
      export: folder to which the students of final runs are exported; None to export none.
    """

    plan: PlanRequest
    outdir: str
    resources: Resources = field(default_factory=Resources)
    faults: Faults = field(default_factory=Faults)
    export: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=sorted)  # `sorted` makes a list of a frozenset

    @classmethod
    def from_json(cls, text: str) -> Request:
        content = json.loads(text)
        return cls(
            _plan(content["plan"]),
            content["outdir"],
            _resources(content["resources"]),
            _faults(content["faults"]),
            content["export"],
        )


def _plan(content: dict[str, Any]) -> PlanRequest:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    fields["variation"] = Variation(**content["variation"])
    return PlanRequest(**fields)


def _resources(content: dict[str, Any]) -> Resources:
    hosts, layout = Hosts(**content["hosts"]), LayoutOptions(**content["layout"])
    return Resources(**content | {"hosts": hosts, "layout": layout})


def _faults(content: dict[str, Any]) -> Faults:
    dead = {name: Fault(**fault) for name, fault in content["dead"].items()}
    return Faults(frozenset(content["alone"]), dead)

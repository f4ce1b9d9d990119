"""What training costs on this machine, as earlier runs measured it; kept in the cache folder.

    ~/.cache/distill-bench/costs/1a2b3c4d5e6f7a8b.json

A file holds the costs of one task in one setting: versions, machine, and layout of the devices.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from distill_bench.files import replace_atomically
from distill_bench.machine import core_count
from distill_bench.tasks.task import Task
from distill_bench.training.lane_layout import LaneLayout
from sweeps.planning.environment import versions


@dataclass(frozen=True)
class Seconds:
    """How long something takes that compiles programs.

    Attributes:
      first: when nothing was compiled before; None if not measured.
      again: when the cache held the programs; None if not measured.
    """

    first: float | None = None
    again: float | None = None

    def measured(self, seconds: float, again: bool) -> Seconds:
        return replace(self, again=seconds) if again else replace(self, first=seconds)

    def expected(self, again: bool, saved: float) -> float:
        """The seconds it will take.

        again: whether the cache holds the programs.
        saved: fraction of the time that the cache is assumed to save, if only the other case has
          been measured.
        """
        if again:
            return self.again or (1 - saved) * (self.first or 0.0)
        return self.first or (self.again or 0.0) / (1 - saved)


@dataclass(frozen=True)
class RuleCost:
    """Seconds of a step of a run (see workload.py), and of compiling one program on one core."""

    step: float
    compilation: Seconds = Seconds()


@dataclass(frozen=True)
class Costs:
    """Seconds of each unit of workload.py.

    Attributes:
      stream: a step of a stream: views and teacher.
      view: one evaluated view, on all devices at once.
      opening: opening the task.
      rules: the update rules that have run, by `workload.rule_id`.
    """

    stream: float
    view: float
    opening: Seconds = Seconds()
    rules: Mapping[str, RuleCost] = field(default_factory=dict)


def setting(task: Task, layouts: Sequence[LaneLayout]) -> dict[str, Any]:
    """Everything, besides the update rule, that the costs depend on."""
    layout = layouts[0]
    device = layout.mesh.devices.flat[0]
    return {
        "task": task.fingerprint(),
        "versions": versions(),
        "processor": _processor(),
        "cores": core_count(),
        "device": device.device_kind,
        "mesh": [len(layouts), *layout.mesh.devices.shape],
        "mapping": layout.mapping,
        "width": layout.width,
        "microbatches": layout.microbatches,
        "remat": layout.remat,
    }


def _processor() -> str:
    """The model of the CPU, where Linux says it: jax calls every CPU "cpu"."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _path(cache: str, of: Mapping[str, Any]) -> Path:
    name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
    return Path(cache) / "costs" / f"{name}.json"


def read(cache: str | None, of: Mapping[str, Any]) -> Costs | None:
    """The costs in this setting. None if none are kept, or the file is damaged or of another
    format: the next run writes it again."""
    if not cache:
        return None
    try:
        content = json.loads(_path(cache, of).read_text())
        return _parse(content["costs"]) if content["setting"] == of else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def write(cache: str | None, of: Mapping[str, Any], costs: Costs) -> None:
    """Keeps the costs of this setting in the folder `cache`; does nothing without a folder."""
    if not cache:
        return
    path, text = _path(cache, of), json.dumps({"setting": of, "costs": asdict(costs)}, indent=1)
    with contextlib.suppress(OSError):  # an estimate is not worth the end of a sweep
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(path, lambda file: file.write(text.encode()))


def _parse(content: Mapping[str, Any]) -> Costs:
    rules = {
        str(name): RuleCost(_positive(rule["step"]), _seconds(rule["compilation"]))
        for name, rule in content["rules"].items()
    }
    view, stream = _positive(content["view"]), _positive(content["stream"])
    return Costs(stream, view, _seconds(content["opening"]), rules)


def _seconds(content: Mapping[str, Any]) -> Seconds:
    return Seconds(
        *(
            None if content[name] is None else _positive(content[name])
            for name in ("first", "again")
        )
    )


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{value!r} is not a positive number")
    return float(value)

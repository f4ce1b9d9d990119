"""Shards of one sweep, which several machines may run: their numbers must be of one kind."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill_bench.errors import UserError
from sweeps.planning.environment import differences
from sweeps.planning.plan import Plan
from sweeps.planning.study import Study
from sweeps.results import store


def refuse_to_mix(plan: Plan, root: Path) -> None:
    """Checks that no other shard runs these studies where numbers are computed otherwise.

    Raises:
      UserError: if the store has one of the plan's studies with other versions; names them.
    """
    if plan.shard[1] == 1:
        return
    for candidate in plan.candidates:
        own = candidate.study
        for path in sorted(store.study_folder(root, own).parent.glob(f"{own.optimizer}-*")):
            other = _stored(path / "study.json")
            versions = other.pop("versions", {})
            if other and other == _without_versions(own) and versions != own.versions:
                raise UserError(
                    f"{path} holds trials of this study that were computed with other versions: "
                    f"{differences(versions, own.versions)}.\nRun all shards on machines of one "
                    "kind with the same versions, or name another --outdir."
                )


def _without_versions(study: Study) -> dict[str, Any]:
    content = json.loads(json.dumps(asdict(study)))
    del content["versions"]
    return content


def _stored(path: Path) -> dict[str, Any]:
    """The fields of a stored study; empty if the file cannot be read."""
    try:
        content = json.loads(path.read_text())
        return {name: content[name] for name in Study.__dataclass_fields__}
    except (OSError, ValueError, KeyError, TypeError):
        return {}

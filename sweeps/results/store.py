"""Append-only results on disk, from which every table is made.

    runs/digits/shampoo-3f2a1b9c4d5e/study.json
    runs/digits/shampoo-3f2a1b9c4d5e/h250_lr=0.05_seed0_1a2b3c/{records.jsonl,result.json}

The name of a trial's folder is for people: it is never read, and files say everything in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from distill_bench.errors import UserError
from sweeps.planning.sampling import parse_domain
from sweeps.planning.study import Result, Study, cut
from sweeps.results import outdir, sealed, trial_files
from sweeps.results.sealed import Damaged

_STUDY = "study.json"
_NAMES = frozenset({field.name for field in fields(Study)} | {"spec", "sources"})


@dataclass
class Loaded:
    """A study and its finished trials.

    Attributes:
      study: the optimizer, its search space and the task.
      folder: the study's folder.
      spec: the optimizer as given to --opt.
      sources: name -> text of the optimizer's file and of the files in optimizers/ that it imports,
        as they were when it ran.
      results: the finished trials.
      problems: trial folders that cannot be read, each with the reason.
      environment: machine and versions of the last trial.
    """

    study: Study
    folder: Path
    spec: str
    sources: dict[str, str]
    results: list[Result] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)


def study_folder(root: Path, study: Study) -> Path:
    return root / study.task / f"{cut(study.optimizer, 200)}-{study.id}"


def save_study(
    root: Path, study: Study, spec: str, sources: Mapping[str, str], say: outdir.Say
) -> Path:
    """Creates the study's folder with the study, its --opt value and its source files.

    If the study is there already, it stays as it is. What is damaged is set aside, and `say` tells.
    """
    folder = outdir.make_folder(root, study_folder(root, study), say)
    path = outdir.expect_file(folder / _STUDY, say)
    if path.exists():
        try:
            if _read_study(folder).study.id != study.id:
                raise Damaged(f"{path} is that of another study")
        except Damaged as error:
            outdir.set_aside(path, str(error), say)
    if not path.exists():
        sealed.write(path, asdict(study) | {"spec": spec, "sources": dict(sources)})
    return folder


def _read_study(folder: Path) -> Loaded:
    """The study in the folder, without its trials.

    Raises:
      Damaged: if its study.json cannot be read or was changed.
    """
    content = sealed.read(folder / _STUDY, _NAMES)
    spec, sources = content.pop("spec"), content.pop("sources")
    study = Study(**content)
    try:
        for domain in study.space.values():
            parse_domain(domain)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{folder / _STUDY} holds no valid search space ({error})") from None
    return Loaded(study, folder, spec, sources)


def load_study(folder: Path) -> Loaded:
    """A study with all its finished trials, ordered by name.

    Raises:
      UserError: if its study.json cannot be read or was changed.
    """
    try:
        loaded = _read_study(folder)
    except Damaged as error:
        raise UserError(
            f"{error}.\nRun the same sweep again, which writes it anew, or move its folder away."
        ) from None
    loaded.results, loaded.problems, loaded.environment = trial_files.load_trials(folder)
    return loaded


def known_studies(root: Path, task: str) -> list[Study]:
    """The studies of one task under `root`, without their trials; those that cannot be read are
    left out."""
    found = []
    for folder in outdir.study_folders(root):
        if folder.parent.name == task:
            with suppress(Damaged):
                found.append(_read_study(folder).study)
    return found


def load(root: Path, tasks: Iterable[str] | None = None) -> list[Loaded]:
    """All studies under `root`, ordered by task and optimizer.

    Args:
      root: the folder given as --outdir.
      tasks: load only studies of these tasks; None for all.

    Raises:
      UserError: if `root` is not a folder or holds an unreadable study.json.
    """
    if not root.is_dir():
        raise UserError(
            f"--outdir={root} is not a folder. Run a sweep first, for example "
            f"python sweeps/run.py --opt=shampoo --outdir={root}"
        )
    studies = [load_study(folder) for folder in outdir.study_folders(root)]
    return [loaded for loaded in studies if tasks is None or loaded.study.task in tasks]


def merge(loaded: Sequence[Loaded]) -> list[Loaded]:
    """Merges studies of the same id from several stores; a trial in several counts once."""
    merged: dict[str, Loaded] = {}
    for one in loaded:
        whole = merged.setdefault(
            one.study.id,
            Loaded(one.study, one.folder, one.spec, one.sources, environment=one.environment),
        )
        known = {result.trial.id for result in whole.results}
        whole.results += [result for result in one.results if result.trial.id not in known]
        whole.problems += one.problems
    return list(merged.values())

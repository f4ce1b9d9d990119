"""Entries: written from a store, refused with reasons, and read as untrusted files."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import pytest

from distill_bench.errors import UserError
from distill_bench.training.exams import CURVE
from support.stores import unseal
from sweeps.board import entries, untrusted, write_entry
from sweeps.board.consistency import inconsistencies
from sweeps.board.entries import BASELINE, BadEntry
from sweeps.planning.study import TUNING_SEED
from sweeps.results import store
from sweeps.results.summary import row_of

TRIALS = {4: 8, 8: 4, 16: 3}  # of the search of board_folder's entries, by horizon


def loaded(root, name):
    return next(one for one in store.load(root) if one.study.optimizer == name)


def test_an_entry_holds_the_runs_of_its_study(finished, board_folder):
    one = loaded(finished, "calm")
    entry = entries.read(board_folder / "tiny" / "calm.json")
    assert (entry.study, entry.horizons, entry.sources, entry.environment) == (
        one.study,
        [4, 8, 16],
        one.sources,
        one.environment,
    )
    assert entry.cost == entries.Cost(2.0, 1.0, 10.0, 8.0)
    for h in (4, 8, 16):
        mine, theirs = row_of(entry.study, entry.results, h), row_of(one.study, one.results, h)
        assert (mine.hparams, mine.seeds, mine.trials) == (theirs.hparams, 5, TRIALS[h])
        assert mine.by_seed == {
            seed: pytest.approx(value, rel=1e-8) for seed, value in theirs.by_seed.items()
        }
    steps, losses = entry.curves[16, 1]
    run = next(r for r in one.results if r.trial.horizon == 16 and r.trial.seed == 1)
    assert (steps[0], steps[-1], losses[0]) == (1, 16, pytest.approx(run.losses[0]))
    assert sum(
        b * loss - a * loss for a, b, loss in zip((0, *steps), steps, losses, strict=False)
    ) == pytest.approx(sum(run.losses), rel=1e-6)
    assert inconsistencies(entry) == []


def without(one, *dropped):
    return dataclasses.replace(
        one, results=[r for r in one.results if (r.trial.horizon, r.trial.seed) not in dropped]
    )


def without_a_trial(results, horizon):
    dropped = next(r for r in results if (r.trial.horizon, r.trial.seed) == (horizon, TUNING_SEED))
    return [r for r in results if r is not dropped]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda one: without(one, (8, 5)),
            r"horizon 8 has 4 final runs of its best setting; an entry needs 5 or more: "
            "--horizons=4,8,16 --trials=8 --seeds=5",
        ),
        (
            lambda one: without(one, (16, TUNING_SEED)),
            r"horizon 16 has 0 of the 3 tuning trials that every entry has: --horizons=4,8,16",
        ),
        (
            lambda one: dataclasses.replace(one, results=without_a_trial(one.results, 4)),
            r"horizon 4 has \d of the 8 tuning trials that every entry has",
        ),
        (
            lambda one: dataclasses.replace(one, results=without_a_trial(one.results, 16)),
            "horizon 16 has 2 of the 3 tuning trials that every entry has",
        ),
        (
            lambda one: without(one, *[(8, seed) for seed in range(6)]),
            r"its ladder is unfinished: it has 4, 16 of 4, 8, 16\. Run the first 3 horizons or",
        ),
        (
            lambda one: without(one, *[(16, seed) for seed in range(6)]),
            r"its ladder is unfinished: it has 4, 8 of 4, 8, 16\. Run the first 3 horizons or more",
        ),
        (lambda one: dataclasses.replace(one, results=[]), r"it has none of"),
        (
            lambda one: dataclasses.replace(
                one, study=dataclasses.replace(one.study, fixed={"lr": 0.1})
            ),
            r"lr was set on the command line",
        ),
        (
            lambda one: dataclasses.replace(
                one, study=dataclasses.replace(one.study, fingerprint="0" * 16)
            ),
            r"another version of tiny",
        ),
        (
            lambda one: dataclasses.replace(one, problems=[(one.folder, "torn")]),
            r"cannot be read: torn",
        ),
    ],
)
def test_a_study_that_cannot_be_an_entry_yet_is_refused_with_the_reason(
    finished, board_folder, tmp_path, change, reason
):
    with pytest.raises(UserError, match=reason):
        write_entry.write(change(loaded(finished, "calm")), None, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def edit(change):
    def edited(text):
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edited


def setter(*path, value):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return edit(change)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: "", "cannot be read"),
        (lambda text: text[:-40], "cannot be read"),
        (lambda text: "\udcff", "cannot be read"),
        (lambda text: "[" * 100_000, "it is nested more than 16 levels deep"),
        (lambda text: text + " " * untrusted.MAX_BYTES, "bytes; at most 4,194,304 are read"),
        (
            lambda text: re.sub(r"\"probe_loss\": [0-9.]+", '"probe_loss": NaN', text, count=1),
            "NaN is not a finite number",
        ),
        (
            lambda text: text.replace('"schema"', '"schema": 1, "schema"', 1),
            "an object in it has the same name twice",
        ),
        (lambda text: "[]", "has schema 'None'"),
        (setter("schema", value=1), "has schema '1', but this version reads 5"),
        (setter("schema", value="<script>"), "has schema '<script>'"),
        (setter("study", "optimizer", value="../../calm"), r"\$\.study\.optimizer"),
        (setter("study", "optimizer", value="<b>calm</b>"), r"\$\.study\.optimizer"),
        (setter("study", "task", value="../tiny"), r"\$\.study\.task"),
        (setter("study", "optimizer", value="other"), r"its content is that of tiny/other\.json"),
        (setter("study", "fixed", value={"lr": 1}), r"\$\.study\.fixed"),
        (setter("rungs", 0, "finals", 0, "points", 0, "probe_loss", value=-1), "probe_loss"),
        (
            setter("rungs", 0, "finals", 0, "points", 0, "probe_loss", value=1e999),
            "Infinity is not a finite number",
        ),
        (setter("rungs", 0, "finals", 0, "points", value=[]), "but no metrics"),
        (setter("rungs", 0, "extra", value=1), "extra"),
        (
            edit(lambda c: c["rungs"][0]["tuning"].pop()),
            "at horizon 4 it has 7 tuning trials, but every entry has 8",
        ),
        (
            edit(lambda c: c["rungs"][0]["tuning"].append(c["rungs"][0]["tuning"][0])),
            "at horizon 4 it has 9 tuning trials, but every entry has 8",
        ),
        (
            edit(lambda c: c["rungs"][1]["tuning"].append(c["rungs"][0]["tuning"][0])),
            "at horizon 8 it has 5 tuning trials, but every entry has 4",
        ),
        (
            edit(lambda c: [rung.update(tuning=[]) for rung in c["rungs"]]),
            "0 tuning trials, but every entry has 8",
        ),
        (
            edit(lambda c: c["rungs"].append(c["rungs"][2] | {"horizon": 32})),
            r"its horizons \[4, 8, 16, 32\] are not the first 3 or more of 4, 8, 16",
        ),
        (edit(lambda c: c["rungs"].pop()), "are not the first 3 or more"),
        (edit(lambda c: c["rungs"][0].update(horizon=4.0)), "are not the first 3 or more"),
        (
            edit(lambda c: c["rungs"][0]["finals"][4].update(seed=4)),
            "its final seeds are not 1 to 5",
        ),
        (
            edit(lambda c: [run.update(seed=run["seed"] + 100) for run in c["rungs"][0]["finals"]]),
            "its final seeds are not 1 to 5",
        ),
        (
            edit(lambda c: c["rungs"][0]["winner"].update(lr=7.0)),
            "hyperparameters lie outside its space",
        ),
        (
            edit(lambda c: c["study"]["space"]["lr"].update(high=0.11)),
            "hyperparameters lie outside its space",
        ),
        *(
            (edit(lambda c, change=change: c["study"]["space"]["lr"].update(change)), reason)
            for change, reason in (
                ({"low": "a"}, r"\$\.study\.space\.lr\.low: 'a' is not of type 'number'"),
                ({"low": 0}, r"\$\.study\.space\.lr\.low: 0 is less than the minimum of 1e-38"),
                ({"high": True}, r"\$\.study\.space\.lr\.high: True is not of type 'number'"),
                ({"kind": "Normal"}, r"\$\.study\.space\.lr\.kind: 'Normal' is not one of"),
                ({"low": 2.0}, "the domain of lr in its space is not a valid range"),
                ({"kind": "Decay"}, "the domain of lr in its space is not a valid range"),  # to 1
                ({"kind": "Uniform", "low": 1 - 1e-12, "high": 1}, "lr in its space is too narrow"),
            )
        ),
        (setter("spec", value="\x1b[2J"), r"\$\.spec"),
        (setter("environment", "jax", value="0.9\x1b]0;title\x07"), r"\$\.environment"),
        (setter("sources", value={"../evil.py": ""}), "sources"),
    ],
)
def test_an_invalid_entry_is_refused_in_one_line_and_the_others_count(board_folder, spoil, reason):
    path = board_folder / "tiny" / "calm.json"
    path.write_bytes(spoil(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(BadEntry, match=reason) as caught:
        entries.read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    found, warnings = entries.load(board_folder, ["tiny"])
    assert [entry.study.optimizer for entry in found] == [BASELINE]
    assert len(warnings) == 1


def test_links_copies_and_entries_of_other_task_versions_are_refused(board_folder):
    folder = board_folder / "tiny"
    (folder / "link.json").symlink_to(folder / "calm.json")
    (folder / "copy.json").write_text((folder / "calm.json").read_text())
    (folder / "calm.json").write_text(
        (folder / "calm.json")
        .read_text()
        .replace(entries.read(folder / "calm.json").study.fingerprint, "0" * 16)
    )
    found, warnings = entries.load(board_folder, ["tiny"])
    assert [entry.study.optimizer for entry in found] == [BASELINE]
    assert [
        part
        for part in (
            "another version of the task",
            "its content is that of tiny/calm.json",
            "not a regular file",
        )
        if not any(part in w for w in warnings)
    ] == []


def test_the_schemas_are_valid():
    from jsonschema import Draft202012Validator

    schemas = sorted(entries.FOLDER.glob("*.schema.json"))
    assert [path.name.partition(".")[0] for path in schemas] == ["check", "entry", "verdict"]
    for path in schemas:
        Draft202012Validator.check_schema(json.loads(path.read_text()))


def test_a_store_without_the_newer_metrics_gives_the_same_rows_and_entry(
    finished, board_folder, tmp_path
):
    """Earlier versions stored only the metrics that entries have."""
    old = tmp_path / "old"
    shutil.copytree(finished, old)
    for path in old.rglob("records.jsonl"):
        unseal(path.with_name("result.json"))
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            if "metrics" in record:
                kept = {CURVE, *entries.METRICS} & record["metrics"].keys()
                record["metrics"] = {name: record["metrics"][name] for name in sorted(kept)}
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    stores = loaded(finished, "calm"), loaded(old, "calm")
    rows = [row_of(one.study, one.results, 8) for one in stores]
    assert rows[0] == rows[1]
    written = [
        write_entry.write(one, None, tmp_path / name)
        for one, name in zip(stores, ("new-board", "old-board"), strict=True)
    ]
    assert written[0].read_bytes() == written[1].read_bytes()

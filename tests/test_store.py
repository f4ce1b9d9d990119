"""The store: what it writes, reads back, merges and reports as damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distill_bench.errors import UserError
from sweeps.planning.study import Study, Trial
from sweeps.results import store

STUDY = Study("digits", "f" * 16, "mine", "s" * 64, {}, {}, {"jax": "1"})
METRICS = {"probe_loss": 0.1 + 0.2, "accuracy": 1 / 3}


def write(root, seed=0, status="ok"):
    trial = Trial(STUDY.id, {"lr": 0.1, "name": "../<b>"}, 4, seed)
    folder = store.save_study(root, STUDY, "mine", {"mine.py": "source"}) / trial.name
    writer = store.TrialWriter(folder, trial)
    writer.start()
    writer.losses(1, np.float32([0.1, 0.2]))
    writer.losses(3, np.float32([0.3, 0.4]))
    writer.point(4, METRICS)
    writer.finish(status, 4, None, {"device": "cpu"})
    return folder


def test_what_is_written_is_read_back_exactly(tmp_path):
    folder = write(tmp_path)
    assert folder.parent.parent == tmp_path / "digits"  # a hostile name stays one folder
    (loaded,) = store.load(tmp_path)
    assert loaded.study == STUDY
    assert loaded.environment == {"device": "cpu"}
    (result,) = loaded.results
    assert result.losses == tuple(np.float32([0.1, 0.2, 0.3, 0.4]).tolist())
    assert result.final == METRICS
    assert result.trial.id == Trial(STUDY.id, {"lr": 0.1, "name": "../<b>"}, 4, 0).id


def test_several_stores_are_merged_and_a_trial_counts_once(tmp_path):
    for root, seeds in (("a", (0, 1)), ("b", (1, 2))):
        for seed in seeds:
            write(tmp_path / root, seed)
    (merged,) = store.merge([*store.load(tmp_path / "a"), *store.load(tmp_path / "b")])
    assert sorted(result.trial.seed for result in merged.results) == [0, 1, 2]


def test_records_are_the_same_bytes_however_the_losses_arrive(tmp_path):
    trial = Trial(STUDY.id, {}, 250, 0)
    for cuts in ([250], [7, 100, 250], [125, 126, 250]):
        folder = tmp_path / str(len(cuts)) / str(cuts[0])
        writer = store.TrialWriter(folder, trial)
        writer.start()
        done = 0
        for cut in cuts:
            writer.losses(done + 1, np.arange(done, cut, dtype=np.float32))
            done = cut
        for step in (125, 250):
            writer.point(step, METRICS)
        writer.finish("ok", 250, None, {})
    contents = {path.read_text() for path in tmp_path.rglob("records.jsonl")}
    assert len(contents) == 1
    steps = [
        json.loads(line).get("step") or json.loads(line).get("first")
        for line in contents.pop().splitlines()[1:]
    ]
    assert steps == [1, 101, 125, 201, 250]


def test_an_unfinished_trial_is_not_counted(tmp_path):
    folder = write(tmp_path)
    (folder / "result.json").unlink()
    (loaded,) = store.load(tmp_path)
    assert (loaded.results, loaded.problems) == ([], [])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "records.jsonl").write_text((f / "records.jsonl").read_text()[:-9]),
            "cut short",
        ),
        (
            lambda f: (f / "records.jsonl").write_text(
                (f / "records.jsonl").read_text().replace('"losses"', '"los', 1)
            ),
            "line 2 is not JSON",
        ),
        (
            lambda f: (f / "records.jsonl").write_text(
                "\n".join((f / "records.jsonl").read_text().split("\n")[:2]) + "\n"
            ),
            "lacks records",
        ),
        (
            lambda f: (f / "records.jsonl").write_text(
                (f / "records.jsonl").read_text().replace('"seed": 0', '"seed": 7')
            ),
            "another trial",
        ),
        (lambda f: (f / "records.jsonl").unlink(), "FileNotFoundError"),
        (lambda f: (f / "result.json").write_text("{}"), "KeyError"),
        (lambda f: (f / "result.json").write_text('{"trial"'), "JSONDecodeError"),
        (lambda f: (f / "result.json").write_bytes(b"\xff\xfe"), "UnicodeDecodeError"),
    ],
)
def test_a_damaged_trial_is_reported_and_can_be_set_aside(tmp_path, damage, message):
    folder, good = write(tmp_path), write(tmp_path, seed=1)
    damage(folder)
    (loaded,) = store.load(tmp_path)
    assert [result.trial.seed for result in loaded.results] == [1]
    ((path, reason),) = loaded.problems
    assert path == folder
    assert message in reason
    aside = store.set_aside(path)
    assert aside.is_dir()
    assert not folder.exists()
    assert good.exists()
    (loaded,) = store.load(tmp_path)
    assert loaded.problems == []


def test_an_atomic_write_leaves_the_old_file_if_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    store.write_atomically(path, "old")

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        store.write_atomically(path, "new")
    assert path.read_text() == "old"


def test_unusable_outdirs_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        store.open_folder(str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        store.open_folder("/proc/distill-bench")
    with pytest.raises(UserError, match="is not a folder"):
        store.load(tmp_path / "missing")


def test_an_unreadable_study_is_an_error(tmp_path):
    folder = write(tmp_path).parent
    (folder / "study.json").write_text(json.dumps({"source": "", "task": "digits"}))
    with pytest.raises(UserError, match=r"study\.json cannot be read"):
        store.load(tmp_path)

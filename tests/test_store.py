"""The store: what it writes, reads back, merges and reports as damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distill_bench.errors import UserError
from support.stores import unseal
from sweeps.planning.study import Study, Trial
from sweeps.results import outdir, store
from sweeps.results.trial_files import TrialWriter

STUDY = Study("digits", "f" * 16, "mine", "s" * 64, {}, {}, {"jax": "1"})
METRICS = {"probe_loss": 0.1 + 0.2, "accuracy": 1 / 3}


def write(root, seed=0, status="ok"):
    trial = Trial(STUDY.id, {"lr": 0.1, "name": "../<b>"}, 4, seed)
    folder = store.save_study(root, STUDY, "mine", {"mine.py": "source"}, print) / trial.name
    writer = TrialWriter(folder, trial)
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
        writer = TrialWriter(folder, trial)
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


def change(path, old, new):
    """Replaces the first `old` in the file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def old_and_changed(old, new):
    """A change that no digest shows."""

    def damage(folder):
        unseal(folder / "result.json")
        change(folder / "records.jsonl", old, new)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: change(f / "records.jsonl", "0.4000000059604645]}\n", ""), "is not JSON"),
        (
            lambda f: (f / "records.jsonl").write_text((f / "records.jsonl").read_text()[:-9]),
            "cut short",
        ),
        (lambda f: change(f / "records.jsonl", '"losses"', '"los'), "line 2 is not JSON"),
        (lambda f: change(f / "records.jsonl", "0.2", "0.3"), "was changed"),
        (lambda f: change(f / "records.jsonl", "0.33333", "0.33334"), "was changed"),
        (lambda f: change(f / "result.json", '"step": 4', '"step": 5'), "was changed"),
        (lambda f: change(f / "result.json", '"ok"', '"diverged"'), "was changed"),
        (lambda f: change(f / "result.json", "cpu", "gpu"), "was changed"),
        (lambda f: change(f / "result.json", '"sha256": "', '"sha256": "0'), "was changed"),
        (lambda f: change(f / "result.json", "sha256", "sha257"), "does not hold what it should"),
        (old_and_changed(", 0.30000001192092896, 0.4000000059604645]", "]"), "lacks records"),
        (old_and_changed('"seed": 0', '"seed": 7'), "another trial"),
        (lambda f: (f / "records.jsonl").unlink(), "FileNotFoundError"),
        (lambda f: (f / "result.json").write_text("{}"), "does not hold what it should"),
        (lambda f: (f / "result.json").write_text("[]"), "not an object"),
        (lambda f: (f / "result.json").write_text("[" * 100_000), "RecursionError"),
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
    said = []
    outdir.set_aside(path, reason, said.append)
    (aside,) = (folder.parent / "damaged").iterdir()
    assert message in said[0]
    assert str(aside) in said[0]
    assert "\n" not in said[0]
    assert not folder.exists()
    assert good.exists()
    (loaded,) = store.load(tmp_path)
    assert loaded.problems == []


def test_files_of_earlier_versions_without_a_digest_are_read_as_before(tmp_path):
    folder = write(tmp_path)
    now = store.load(tmp_path)
    for path in (folder / "result.json", folder.parent / "study.json"):
        unseal(path)
    assert store.load(tmp_path) == now
    (loaded,) = now
    assert (len(loaded.results), loaded.problems) == (1, [])


def test_unusable_outdirs_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        outdir.open_folder(str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written"):
        outdir.open_folder("/proc/distill-bench")
    with pytest.raises(UserError, match="is not a folder"):
        store.load(tmp_path / "missing")


def folder_in_place_of(path):
    path.unlink()
    path.mkdir()


def link_in_place_of(path):
    path.unlink()
    path.symlink_to("nowhere")


DAMAGE = {
    "a folder": folder_in_place_of,
    "a dangling link": link_in_place_of,
    "empty": lambda path: path.write_text(""),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbled": lambda path: path.write_bytes(bytes(255 - byte for byte in path.read_bytes())),
    "another": lambda path: path.write_text(json.dumps({"source": "", "task": "digits"})),
    "a digit": lambda path: change(path, "s" * 64, "s" * 63 + "t"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_study_is_told_and_written_anew_by_the_next_sweep(tmp_path, damage):
    path = write(tmp_path).parent / "study.json"
    before = path.read_bytes()
    DAMAGE[damage](path)
    with pytest.raises(UserError, match=r"study\.json .*\nRun the same sweep again"):
        store.load(tmp_path)
    said = []
    store.save_study(tmp_path, STUDY, "mine", {"mine.py": "source"}, said.append)
    assert path.read_bytes() == before
    (aside,) = (path.parent / "damaged").iterdir()
    (line,) = said
    assert line.startswith(f"Damaged: {path} ")
    assert f"Set aside as {aside}" in line
    assert "\n" not in line
    (loaded,) = store.load(tmp_path)
    assert (len(loaded.results), loaded.problems) == (1, [])


def test_a_study_whose_space_makes_no_sense_is_told(tmp_path):
    path = write(tmp_path).parent / "study.json"
    unseal(path)
    change(path, '"space": {}', '"space": {"lr": {"kind": "Log", "low": 1, "high": Infinity}}')
    with pytest.raises(UserError, match="holds no valid search space"):
        store.load(tmp_path)


@pytest.mark.parametrize("damage", ["a folder", "a dangling link"])
@pytest.mark.parametrize(("name", "shard"), [(".lock", ""), (".lock-0-of-2", "0/2")])
def test_what_stands_in_place_of_a_lock_is_set_aside(tmp_path, damage, name, shard):
    (tmp_path / name).touch()
    DAMAGE[damage](tmp_path / name)
    said = []
    with outdir.locked(tmp_path, said.append, shard):
        assert (tmp_path / name).read_text().startswith("process")
    assert (tmp_path / name).read_bytes() == b""
    assert said == [
        f"Damaged: {tmp_path / name} is not a file. "
        f"Set aside as {tmp_path / 'damaged' / name}.0; it is made again."
    ]


@pytest.mark.parametrize("place", ["digits", "digits/mine-*"])
def test_a_file_in_place_of_a_folder_is_set_aside(tmp_path, place):
    folder = write(tmp_path / "other").parent
    path = tmp_path / "runs" / ("digits" if place == "digits" else f"digits/{folder.name}")
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    said = []
    store.save_study(tmp_path / "runs", STUDY, "mine", {"mine.py": "source"}, said.append)
    assert len(store.load(tmp_path / "runs")) == 1
    assert [line.split(". Set")[0] for line in said] == [f"Damaged: {path} is not a folder"]
    assert (path.parent / "damaged" / f"{path.name}.0").read_text() == "mine"


def test_what_killed_processes_left_is_removed_at_the_next_start(tmp_path):
    finished, running = write(tmp_path), write(tmp_path, seed=1)
    (running / "result.json").unlink()
    root, study = tmp_path, finished.parent
    left = [
        root / ".writable.123",
        study / ".study.json.123",
        finished / ".records.jsonl.123",
        running / ".result.json.123",
        running / ".state.npz.123",
        running / "refused-17.npz",
        finished / "state.npz",
    ]
    kept = [running / "state.npz", root / ".mine.123", study / "notes.txt"]
    for path in (*left, *kept):
        path.write_text("x")
    with outdir.locked(root, pytest.fail):
        pass
    assert [path for path in left if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert len(store.load(root)[0].results) == 1

"""Forged entries, verdicts and checks: one bad file is one warning, and the board stands.

The forged entries lie beside the committed ones, which the command must show as ever.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.paths import ROOT
from sweeps.board import build, entries, markdown, page, tables, tune_checks, untrusted, verdicts
from sweeps.board.entries import BASELINE, FOLDER
from sweeps.board.tune_checks import TuneCheck
from sweeps.board.verdicts import Verdict

COMMITTED = FOLDER / "digits"
RIVAL = min(
    path.stem
    for path in COMMITTED.glob("*.json")
    if path.stem != BASELINE and '"weight_decay": {' in path.read_text()
)
DEEP = "[" * 600 + "]" * 600
HUGE = "1" + "0" * 4000


def setting(domain, value):
    """Gives a hyperparameter another domain of the same kind, and all runs this value of it."""

    def change(content):
        space = content["study"]["space"]
        name = next(name for name in [*space][::-1] if space[name]["kind"] == domain["kind"])
        space[name] = domain
        for rung in content["rungs"]:
            for hparams in [rung["winner"], *(run["hparams"] for run in rung["tuning"])]:
                hparams[name] = value

    return change


def losses(value):
    def change(content):
        for rung in content["rungs"]:
            for run in rung["tuning"]:
                if run["final"]:
                    run["final"]["probe_loss"] = value
            for run in rung["finals"]:
                run["points"][-1]["probe_loss"] = value

    return change


def trials(content):
    for rung in content["rungs"]:
        rung["tuning"] = (rung["tuning"] * 1024)[:1024]


def repeated(content):
    tried = content["rungs"][0]["tuning"]
    tried[0]["hparams"] = tried[1]["hparams"]


def source(text):
    return lambda content: content["sources"].update({f"optimizers/{RIVAL}.py": text})


def put(*path, value):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


WIDE = {"kind": "Log", "low": 1e-12, "high": 1.0}
FORGED_CONTENT: dict[str, tuple] = {
    "bound_of_0": (
        put("study", "space", "weight_decay", "low", value=0),
        "$.study.space.weight_decay.low: 0 is less than the minimum of 1e-38",
    ),
    "value_of_0": (setting(WIDE, 0), "hyperparameters lie outside its space"),
    "value_of_1": (
        setting({"kind": "Decay", "low": 0.5, "high": 1 - 1e-10}, 1),
        "hyperparameters lie outside its space",
    ),
    "other_hyperparameters": (
        lambda content: content["rungs"][0]["winner"].update(more=1e-320),
        "hyperparameters are not those of its space",
    ),
    "repeated": (repeated, "two of its tuning trials have the same hyperparameters"),
    "tiny_losses": (losses(1e-300), "probe_loss: 1e-300 is less than the minimum of 1e-09"),
    "huge_losses": (losses(1e31), "probe_loss: 1e+31 is greater than the maximum of 1e+30"),
    "many_trials": (trials, "$.rungs[0].tuning: it has 1,024 parts; at most 384 are allowed"),
    "minus_signs": (source("x = " + "-" * 100_000 + "1\n"), f"{RIVAL}.py is nested too deeply"),
    "long_sum": (source("x = 1" + "+1" * 60_000 + "\n"), f"{RIVAL}.py is nested too deeply"),
    "no_python": (source("def f(:\n"), f"its source optimizers/{RIVAL}.py is not Python"),
    "free_update": (
        put("cost", "teacher_ms", value=1e-320),
        "teacher_ms: 1e-320 is less than the minimum of 1e-09",
    ),
    "half_a_character": (
        put("study", "versions", "jax", value="0.10\ud800"),
        "some of its text is not Unicode",
    ),
    "second_line": (
        put("study", "versions", "jax", value="0.10\n"),
        r"'0.10\n' is not a whole number, null or one line of text",
    ),
    "turned_text": (
        put("spec", value="x\u202e"),
        r"'x\u202e' is not one line of text without control characters",
    ),
    "escape_in_a_name": (
        put("study", "space", "\x1b[2J", value={}),
        r"'\x1b[2J' is not a name of letters, digits and _, at most 64",
    ),
    "backwards": (
        lambda content: content["rungs"][0]["finals"][0]["points"].reverse(),
        "the steps of a curve do not rise to at most its horizon",
    ),
    "torn_curve": (
        lambda content: content["rungs"][0]["finals"][0]["curve"]["loss"].pop(),
        "a training curve has not one loss for each step",
    ),
}


def text(find, value):
    """Replaces a JSON value by text that json.dumps would not write."""
    return lambda content: json.dumps(content).replace(find, value, 1)


FORGED_TEXT = {
    "deep": (text('"devices": 1', f'"devices": {DEEP}'), "nested more than 16 levels deep"),
    "deeper": (lambda content: "[" * 100_000, "nested more than 16 levels deep"),
    "huge_integer": (
        text('"devices": 1', f'"devices": {HUGE}'),
        "a whole number of 4,001 digits, is too large",
    ),
    "beyond_float": (text('"cores": 2', '"cores": 1e999'), "1e999 is not a finite number"),
    "million_lists": (
        text('"tuning": [', '"tuning": [' + "[]," * 1_300_000),
        "$.rungs[0].tuning: it has 1,300,096 parts; at most 384 are allowed",
    ),
    "gigantic": (lambda content: " " * (5 << 20), "it has 5,242,880 bytes; at most 4,194,304"),
    "bytes": (lambda content: "\udcff", "it cannot be read (UnicodeDecodeError: "),
}


def forge(folder):
    """Writes all forged entries into the folder; returns name -> reason."""
    reasons = {}
    for name, (change, reason) in FORGED_CONTENT.items():
        content = json.loads((COMMITTED / f"{RIVAL}.json").read_text())
        content["study"]["optimizer"] = name
        change(content)
        (folder / f"{name}.json").write_text(json.dumps(content))
        reasons[name] = reason
    for name, (change, reason) in FORGED_TEXT.items():
        content = json.loads((COMMITTED / f"{RIVAL}.json").read_text())
        content["study"]["optimizer"] = name
        forged = change(content).encode(errors="surrogateescape")
        (folder / f"{name}.json").write_bytes(forged)
        reasons[name] = reason
    return reasons


@pytest.mark.process
@pytest.mark.slow
def test_each_forged_entry_is_one_warning_of_the_command(tmp_path):
    folder = tmp_path / "board" / "digits"
    folder.mkdir(parents=True)
    reasons = forge(folder)
    for name in ("esc\x1b[2J.json", "half\udcff.json", "line\nbreak.json"):
        (folder / name).write_text("{}")
    (folder / "folder.json").mkdir()
    (folder / "pipe.json").symlink_to("/dev/zero")
    (tmp_path / "board" / "notice.txt").write_bytes(b"Mind\xff the\x1b[2J gap. " + b"x" * 10**6)
    for name in (BASELINE, RIVAL):
        (folder / f"{name}.json").write_bytes((COMMITTED / f"{name}.json").read_bytes())
    command = [sys.executable, str(ROOT / "sweeps" / "leaderboard.py"), "--entries=board"]
    done = subprocess.run(
        [*command, "--format=json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stderr) == (1, "")
    board = json.loads(done.stdout)
    assert {entry["optimizer"] for entry in board["entries"]} == {BASELINE, RIVAL}
    told = {name: [w for w in board["warnings"] if f"/{name}.json is" in w] for name in reasons}
    assert {name: len(found) for name, found in told.items()} == dict.fromkeys(reasons, 1)
    unlike = {name: told[name] for name, reason in reasons.items() if reason not in told[name][0]}
    assert unlike == {}
    assert len(board["warnings"]) == len(reasons) + 5
    assert all(len(one) < 600 and one.isprintable() for one in board["warnings"])
    assert board["notice"].isprintable()
    assert board["notice"].startswith(r"Mind� the\x1b[2J gap. x")
    assert len(board["notice"]) < 5000


@pytest.fixture
def entry(board_folder):
    return entries.read(board_folder / "tiny" / f"{BASELINE}.json")


def verdict(entry):
    """What verify.py writes of one rerun."""
    loss = entry.results[-1].final["probe_loss"]
    run = {"kind": "final", "horizon": 16, "seed": 5, "trial": None, "recorded": loss}
    run |= {"rerun": loss, "environment": 0}
    here = {"jax": "1", "devices": 1, "processor": None}
    drawn = [{"seed": 1, "finals": 1, "tuning": 0}]
    made = Verdict("reproduced", "all agree", entry.sha256, here, [run], [here], drawn)
    return dataclasses.asdict(made.stamped())


def check(entry):
    """What tune_check.py writes of one hyperparameter."""
    gain = {"value": 0.003, "low": 0.0, "high": 0.012}
    arm = {"value": 0.01, "offset": -0.125, "losses": {"1": 0.5, "2": None}, "gain": gain}
    factor = {"horizon": 4, "hyperparameter": "lr", "gain": gain, "offset": 0.1}
    factors = [factor | {"neighbours": [arm, arm | {"gain": None, "value": "b"}]}]
    made = TuneCheck(entry.sha256, {"jax": "1"}, "python x.py", None, [4], 3, factors)
    return dataclasses.asdict(made) | {"largest": gain}


def changed(path, value):
    """A function that puts `value` into data at a dotted path."""

    def change(data):
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in parents:
            data = data[key]
        data[last] = value

    return change


def unreadable(content):
    return lambda data: content


MARK = "MARK"  # stands for text that json.dumps would not write


def marked(path, content):
    """Like `changed`, with JSON text in place of a value."""

    def change(data):
        changed(path, MARK)(data)
        return json.dumps(data).replace(f'"{MARK}"', content)

    return change


ANY = {
    "empty": (unreadable(""), "it cannot be read (JSONDecodeError: "),
    "bytes": (unreadable("\udcff"), "it cannot be read (UnicodeDecodeError: "),
    "a list": (unreadable("[]"), "$: [] is not of type 'object'"),
    "deep": (marked("environment.jax", DEEP), "it is nested more than 16 levels deep"),
    "too deep": (unreadable("[" * 100_000), "it is nested more than 16 levels deep"),
    "gigantic": (unreadable(" " * (5 << 20)), "it has 5,242,880 bytes; at most 4,194,304 are read"),
    "huge integer": (marked("environment.jax", HUGE), "a whole number of 4,001 digits, is too la"),
    "half a character": (changed("environment.jax", "\ud800"), "some of its text is not Unicode"),
    "escape": (changed("environment.jax", "\x1b[2J"), r"'\x1b[2J' is not a whole number, null or"),
    "another field": (changed("more", 1), "Additional properties are not allowed ('more' was"),
    "no digest": (changed("entry_sha256", "0"), "'0' is not a digest of 64 hexadecimal digits"),
}
VERDICTS = ANY | {
    "another word": (changed("verdict", "perfect"), "'perfect' is not one of ['reproduced', 'fa"),
    "two lines": (changed("detail", "all\nagree"), "is not one line of text without control"),
    "no detail": (changed("detail", ""), "$.detail: '' should be non-empty"),
    "long detail": (changed("detail", "x" * 1000), "it has 1,000 parts; at most 999"),
    "another kind": (changed("runs.0.kind", "<b>"), "$.runs[0].kind: '<b>' is not one of"),
    "a loss of 0": (changed("runs.0.rerun", 0), "0 is less than the minimum of 1e-45"),
    "endless loss": (marked("runs.0.rerun", "1e999"), "1e999 is not a finite number"),
    "no number": (marked("runs.0.rerun", "NaN"), "NaN is not a finite number"),
    "negative trial": (changed("runs.0.trial", -1), "$.runs[0].trial: -1 is less than the minimum"),
    "an empty run": (changed("runs.0", {}), "'horizon' is a required property"),
    "runs by name": (changed("runs", {"a": 1}), "$.runs: {'a': 1} is not of type 'array'"),
    "many runs": (changed("runs", [{}] * 10_000), "it has 10,000 parts; at most 5,000 are allowed"),
    "a list as a place": (changed("environments.0", []), "[] is not of type 'object'"),
    "a word as a seed": (changed("draws.0.seed", "1"), "'1' is not of type 'integer'"),
}
CHECKS = ANY | {
    "a gain above 1": (changed("largest.high", 1.1), "1.1 is greater than the maximum of 1"),
    "a word as a gain": (changed("largest.value", "0"), "$.largest.value: '0' is not of type"),
    "endless gain": (marked("largest.low", "-1e999"), "-1e999 is not a finite number"),
    "a list as a gain": (changed("largest", [1]), "$.largest: [1] is not"),
    "many horizons": (changed("horizons", [4] * 100_000), "100,000 parts; at most 16 are allowed"),
    "a horizon in words": (changed("horizons", ["<b>"]), "'<b>' is not of type 'integer'"),
    "no seeds": (changed("seeds", 0), "$.seeds: 0 is less than the minimum of 1"),
    "deep factors": (marked("factors.0.gain", DEEP), "it is nested more than 16 levels deep"),
    "a loss of 0": (
        changed("factors.0.neighbours.0.losses", {"1": 0}),
        "0 is less than the minimum",
    ),
    "no seed": (changed("factors.0.neighbours.0.losses", {"x": 1}), "'x' is not a seed"),
}


def warned(entry, path, forged, make):
    """The board's only warning with the forged file; everything else is as without it."""
    data = make(entry)
    content = forged(data)
    forged_text = json.dumps(data) if content is None else content
    path.write_bytes(forged_text.encode(errors="surrogateescape"))
    board = build.make([entry])
    markdown.render(board).encode()
    (warning,) = board.pop("warnings")
    assert warning.startswith(f"{path} is not counted: ")
    assert len(warning) < 600
    assert warning.isprintable()
    path.unlink()
    without = build.make([entry])
    assert without.pop("warnings") == []
    assert board == without
    return warning


def put_right(entry, path, make):
    path.parent.mkdir()
    path.write_text(json.dumps(make(entry)))
    board = build.make([entry])
    assert board["warnings"] == []
    other = make(entry) | {"entry_sha256": "0" * 64}  # of other content
    stamped = dataclasses.asdict(Verdict(**other).stamped()) if make is verdict else other
    path.write_text(json.dumps(stamped))
    assert build.make([entry])["warnings"] == []
    return board["entries"][0]


@pytest.mark.long
def test_a_forged_verdict_is_one_warning(entry):
    path = verdicts.path_of(entry)
    assert put_right(entry, path, verdict)["verification"]["detail"] == "all agree"
    for name, (forged, reason) in VERDICTS.items():
        assert reason in warned(entry, path, forged, verdict), name
    path.mkdir()
    assert "it is not a regular file" in build.make([entry])["warnings"][0]


def test_a_forged_check_is_one_warning(entry):
    path = tune_checks.path_of(entry)
    assert put_right(entry, path, check)["tune_check"]["largest"]["value"] == 0.003
    for name, (forged, reason) in CHECKS.items():
        assert reason in warned(entry, path, forged, check), name


LEVELS = (1e-9, 0.1 - 2e-12, 0.1 - 1e-12, 0.1, 1.0, 1e30)  # the nearly equal ones: a flat curve


@settings(
    max_examples=12,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.sampled_from(LEVELS), min_size=6, max_size=6), st.sampled_from([1, 1 + 1e-9, 9]))
@example([0.1, 0.1 - 1e-12, 0.1 - 2e-12, 0.1, 0.1, 0.1], 1 + 1e-9)
def test_any_losses_within_the_schema_make_a_board(board_folder, capsys, levels, spread):
    for name, own in ((BASELINE, levels[:3]), ("calm", levels[3:])):
        path = board_folder / "tiny" / f"{name}.json"
        content = json.loads(path.read_text())
        for rung, level in zip(content["rungs"], own, strict=True):
            for i, run in enumerate(rung["finals"]):
                run["points"][-1]["probe_loss"] = min(level * spread**i, 1e30)
        path.write_text(json.dumps(content))
    board = build.make(*entries.load(board_folder, ["tiny"]))
    assert (len(board["entries"]), board["warnings"]) == (2, [])
    tables.print_board(board)
    markdown.render(board)
    page.render(board)


def test_final_runs_of_a_trial_that_failed_are_no_result(board_folder):
    path = board_folder / "tiny" / "calm.json"
    content = json.loads(path.read_text())
    for run in content["rungs"][0]["tuning"]:
        if run["hparams"] == content["rungs"][0]["winner"]:
            run |= {"status": "crashed", "final": None}
    path.write_text(json.dumps(content))
    board = build.make(*entries.load(board_folder, ["tiny"]))
    markdown.render(board)
    (calm,) = (entry for entry in board["entries"] if entry["optimizer"] == "calm")
    assert [rung["seeds"] for rung in calm["rungs"]] == [0, 5, 5]


def test_the_schemas_have_the_fields_of_the_classes():
    for schema, made in (("verdict", Verdict), ("check", TuneCheck)):
        properties = json.loads((FOLDER / f"{schema}.schema.json").read_text())["properties"]
        assert [*properties] == [one.name for one in dataclasses.fields(made)]


def test_content_of_any_version_of_unicode_is_one_printable_line():
    for text in ("a\nb", "\x1b[2J", "\ud800", "\u202e", "\x00", "\U000e0001", "é€😀"):
        assert untrusted.printable(text).isprintable()
        untrusted.printable(text).encode()
    assert untrusted.printable("é€😀") == "é€😀"

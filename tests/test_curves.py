"""Curves, HParams groups and the chart layout, read back through a real TensorBoard server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from sweeps.execution import tensorboard, tensorboard_overview, tensorboard_runs
from sweeps.planning.study import Result, Study, Trial

TRIALS = [("one", 0.1, 1), ("one", 0.1, 2), ("one", 0.2, 1), ("other", 0.1, 1)]
RUNS = {"h20/one/seed1", "h20/one/seed2", "h20/other/seed1", "h20/one@ssssss/seed1", "h20/one/mean"}


def study_of(opt, lr):
    return Study("digits", "f" * 16, opt, "s" * 64, {}, {"lr": lr}, {})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for opt, lr, seed in TRIALS:
        study = study_of(opt, lr)
        trial = Trial(study.id, {"lr": lr, "centred": True}, 20, seed)
        runs = tensorboard_runs.assign(root, [study])[study.id]
        sink = tensorboard.TrialCurves(
            runs.of_trial(trial),
            study,
            trial,
            lambda steps, lr=lr: lr * (1 - steps / 20),
        )
        sink.losses(1, np.linspace(2, 1, 10, dtype=np.float32))
        sink.losses(11, np.linspace(1, 0, 10, dtype=np.float32))
        sink.point(5, {"curve_loss": 1.75})
        sink.point(
            10,
            {
                "curve_loss": 1.25,
                "curve_heldout_kl": 1.35,
                "probe_loss": 1.5,
                "heldout_kl": 1.6,
                "test_kl": 1.7,
                "agreement": 0.5,
                "accuracy": 0.25,
                "agreement5": 0.9,
                "label_xent": 2.5,
                "euclidean": 3.0,
            },
        )
        sink.point(
            20,
            {
                "curve_loss": 1.0,
                "probe_loss": lr + seed,
                "heldout_kl": 0.6,
                "test_kl": 0.7,
                "agreement": 0.75,
                "accuracy": 0.5,
                "agreement5": 1.0,
                "label_xent": 2.0,
                "euclidean": 2.5,
            },
        )
        sink.finish(ok=True)
    of_finals = tensorboard_runs.assign(root, [study_of("one", 0.1)])
    (runs,) = of_finals.values()
    results = [
        Result(
            Trial("", {}, 20, seed),
            "ok",
            20,
            losses=tuple(np.linspace(2, seed - 1, 20)),
            points=((10, {"curve_loss": seed + 1.0}), (20, {"curve_loss": seed, "probe_loss": 1})),
        )
        for seed in (1, 2)
    ]
    tensorboard_overview.write_mean(runs.of_finals(20) / tensorboard_runs.MEAN, results, 20, 2.0)
    hparams = {"lr": 0.1, "centred": True, "kind": "a"}
    for _ in range(2):
        tensorboard_overview.write_tables(runs.folder / "finals", [40, 20], hparams, print)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(runs.folder / "finals"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--load_fast",
        "false",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def get(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/data/{path}",
            data,
            {"Content-Type": "application/json"} if data else {},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    try:
        for _ in range(120):
            try:
                if len(get("plugin/scalars/tags")) == len(RUNS):
                    break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, "TensorBoard has ended"
            time.sleep(0.5)
        else:
            raise AssertionError("TensorBoard shows no runs after a minute")
        yield get
    finally:
        process.terminate()
        process.wait(20)


def test_every_metric_is_a_curve_over_steps(server):
    tags = server("plugin/scalars/tags")
    assert set(tags) == RUNS
    (run,) = [run for run in tags if "other" in run]
    assert set(tags[run]) == {
        *tensorboard.TAGS.values(),
        tensorboard.TRAIN_LOSS,
        tensorboard.LEARNING_RATE,
    }
    points = server(f"plugin/scalars/scalars?tag=train/loss&run={urllib.request.quote(run)}")
    assert [step for _, step, _ in points] == list(range(1, 21))
    np.testing.assert_allclose(
        [value for *_, value in points], [*np.linspace(2, 1, 10), *np.linspace(1, 0, 10)], atol=1e-6
    )
    points = server(f"plugin/scalars/scalars?tag=probe/loss&run={urllib.request.quote(run)}")
    assert [(step, round(value, 6)) for _, step, value in points] == [(10, 1.5), (20, 1.1)]
    points = server(f"plugin/scalars/scalars?tag=probe/curve&run={urllib.request.quote(run)}")
    assert [(step, value) for _, step, value in points] == [(5, 1.75), (10, 1.25), (20, 1.0)]
    rates = server(
        f"plugin/scalars/scalars?tag=train/learning_rate&run={urllib.request.quote(run)}"
    )
    assert [(step, round(value, 6)) for _, step, value in rates] == [(0, 0.1), (10, 0.05)]


def test_seeds_of_a_configuration_form_one_session_group(server):
    experiment = server("plugin/hparams/experiment", {})
    assert {info["name"] for info in experiment["hparamInfos"]} == {
        "optimizer",
        "horizon",
        "lr",
        "centred",
        "kind",
    }
    metrics = [(info["name"]["tag"], info["displayName"]) for info in experiment["metricInfos"]]
    assert metrics[:2] == [("probe/loss", "probe loss"), ("heldout/kl", "heldout kl")]
    request = {
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_FAILURE"],
        "colParams": [],
        "startIndex": 0,
        "sliceSize": 100,
    }
    groups = server("plugin/hparams/session_groups", request)["sessionGroups"]
    assert {group["name"].rsplit(" ", 1)[0] for group in groups} == {"one h20", "other h20"}
    sizes = {
        (group["hparams"]["optimizer"], group["hparams"]["lr"]): len(group["sessions"])
        for group in groups
    }
    assert sizes == {("one", 0.1): 2, ("one", 0.2): 1, ("other", 0.1): 1}
    assert {session["status"] for group in groups for session in group["sessions"]} == {
        "STATUS_SUCCESS"
    }


def test_each_horizon_has_charts_of_the_means(server):
    layout = server("plugin/custom_scalars/layout")
    assert [category["title"] for category in layout["category"]] == ["20 steps", "40 steps"]
    charts = {chart["title"]: chart["multiline"]["tag"] for chart in layout["category"][0]["chart"]}
    assert charts["probe/loss"] == ["^h20/probe/loss$"]
    assert {"probe/curve", "train/loss", "heldout/kl", "heldout/agreement"} <= set(charts)

    def points(run, tag):
        found = server(
            f"plugin/custom_scalars/scalars?tag={urllib.request.quote(f'^{tag}$')}"
            f"&run={urllib.request.quote(run)}"
        )
        assert found["regex_valid"]
        return {name: [point[1:] for point in of] for name, of in found["tag_to_events"].items()}

    # Means over seeds, over gradient evaluations: these runs take two a step.
    assert points("h20/one/mean", "h20/probe/curve") == {"h20/probe/curve": [[20, 2.5], [40, 1.5]]}
    assert points("h20/one/mean", "h20/probe/loss") == {"h20/probe/loss": [[40, 1.0]]}
    (losses,) = points("h20/one/mean", "h20/train/loss").values()
    assert losses[0] == [2, 2.0]
    assert losses[-1] == [40, 0.5]
    assert points("h20/one/seed1", "h20/probe/curve") == {}


def test_studies_of_one_name_have_folders_of_their_own_and_keep_them(tmp_path):
    first, second = study_of("one", 0.1), study_of("one", 0.2)
    third = study_of("one", 0.3)

    def names(*studies):
        found = tensorboard_runs.assign(tmp_path, studies)
        return [found[study.id].name for study in studies]

    assert names(first) == ["one"]
    assert names(second, first) == ["one@ssssss", "one"]
    assert names(third) == [f"one@ssssss-{third.id}"]
    known = tensorboard_runs.folder_of(tmp_path, "digits") / "names.json"
    known.write_text("torn {")
    assert names(second) == ["one"]
    known.write_text(json.dumps({second.id: "../elsewhere"}))
    assert names(second) == ["one"]


def test_a_tuning_trial_is_named_by_its_hyperparameters(tmp_path):
    study = study_of("one", 0.1)
    runs = tensorboard_runs.assign(tmp_path, [study])[study.id]
    trial = Trial(study.id, {"lr": 0.0412345, "kind": "a/b"}, 20, 0)
    at = tmp_path / "tensorboard" / "digits" / "tuning" / "h20" / "one"
    assert runs.of_trial(trial) == at / f"lr=0.0412,kind=a-b,{trial.id[:6]}"
    long = Trial(study.id, {f"name{i}": 0.1 for i in range(60)}, 20, 0)
    runs.of_trial(long).mkdir(parents=True)

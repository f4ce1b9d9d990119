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

from sweeps.execution import tensorboard
from sweeps.planning.study import Study, Trial

TRIALS = [("one", 0.1, 1), ("one", 0.1, 2), ("one", 0.2, 1), ("other", 0.1, 1)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for opt, lr, seed in TRIALS:
        study = Study("digits", "f" * 16, opt, "s" * 64, {}, {}, {})
        trial = Trial(study.id, {"lr": lr, "centred": True}, 20, seed)
        sink = tensorboard.TrialCurves(
            root / "digits" / opt / trial.name,
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
    tensorboard.write_layout(root, print)
    tensorboard.write_layout(root, print)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(root),
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
                if len(get("plugin/scalars/tags")) == len(TRIALS):
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
    assert len(tags) == 4
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
    }
    metrics = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert {"probe/loss", "heldout/kl", "heldout/agreement", "heldout/accuracy"} <= metrics
    request = {
        "allowedStatuses": ["STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_FAILURE"],
        "colParams": [],
        "startIndex": 0,
        "sliceSize": 100,
    }
    groups = server("plugin/hparams/session_groups", request)["sessionGroups"]
    sizes = {
        (group["hparams"]["optimizer"], group["hparams"]["lr"]): len(group["sessions"])
        for group in groups
    }
    assert sizes == {("one", 0.1): 2, ("one", 0.2): 1, ("other", 0.1): 1}
    assert {session["status"] for group in groups for session in group["sessions"]} == {
        "STATUS_SUCCESS"
    }


def test_the_charts_overlay_all_optimizers(server):
    layout = server("plugin/custom_scalars/layout")
    charts = {
        chart["title"]: chart["multiline"]["tag"]
        for category in layout["category"]
        for chart in category["chart"]
    }
    assert charts["probe/loss"] == ["^probe/loss$"]
    assert {
        "probe/curve",
        "train/loss",
        "train/learning_rate",
        "heldout/kl",
        "heldout/agreement",
        "heldout/accuracy",
    } <= set(charts)
    tags = server("plugin/scalars/tags")
    for run in tags:
        found = server(
            f"plugin/custom_scalars/scalars?tag=%5Eprobe/loss%24&run={urllib.request.quote(run)}"
        )
        assert found["regex_valid"]
        assert [step for _, step, _ in found["tag_to_events"]["probe/loss"]] == [10, 20]

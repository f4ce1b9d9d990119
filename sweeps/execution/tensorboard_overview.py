"""Event files about several runs: the mean over seeds, the page of charts, the table.

The mean over an optimizer's final runs is a run of its own. Some of its curves also have a name
with the horizon, such as "h250/probe/curve". The Custom Scalars page has a group of charts for each
horizon, and each chart has one line for each optimizer.
"""

# pyright: reportAttributeAccessIssue=false
# TensorBoard's generated protobuf modules have no type stubs.

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util import tensor_util

from distill_bench.files import replace_atomically
from distill_bench.training.exams import CURVE, HELDOUT_CURVE
from sweeps.execution.tensorboard import TAGS, TRAIN_LOSS, EventFile, Events
from sweeps.planning.study import Result
from sweeps.results.outdir import Say, expect_file

CHARTS = (
    TAGS[CURVE],
    TAGS[HELDOUT_CURVE],
    TRAIN_LOSS,
    TAGS["probe_loss"],
    TAGS["heldout_kl"],
    TAGS["agreement"],
)
"""Curves of a mean that also have a name with the horizon."""
_METRICS = ("probe_loss", "heldout_kl", "test_kl", "agreement", "accuracy")


def write_mean(folder: Path, results: Sequence[Result], horizon: int, evaluations: float) -> None:
    """Writes the mean of final runs of one optimizer.

    Args:
      folder: of the run to write.
      results: runs of one configuration that ended well.
      horizon: of the runs.
      evaluations: gradient evaluations of a step.
    """
    file = EventFile(folder)

    def write(tag: str, value: float, step: int) -> None:
        place = round(step * evaluations)
        file.events.scalar(tag, value, place)
        if tag in CHARTS:
            file.events.scalar(f"h{horizon}/{tag}", value, place)

    for i, value in enumerate(np.mean([result.losses for result in results], axis=0).tolist()):
        write(TRAIN_LOSS, value, i + 1)
    for step, found in _points(results).items():
        for name, values in found.items():
            write(TAGS[name], float(np.mean(values)), step)
    file.write_whole()


def _points(results: Sequence[Result]) -> dict[int, dict[str, list[float]]]:
    """Step -> metric -> its value in each run; where all of them were measured."""
    by_step: dict[int, dict[str, list[float]]] = {}
    for result in results:
        for step, metrics in result.points:
            for name, value in metrics.items():
                by_step.setdefault(step, {}).setdefault(name, []).append(value)
    complete = {
        step: {name: values for name, values in found.items() if len(values) == len(results)}
        for step, found in by_step.items()
    }
    return {step: found for step, found in sorted(complete.items()) if found}


def write_tables(
    folder: Path, horizons: Iterable[int], hparams: Mapping[str, Any], say: Say
) -> None:
    """Writes the charts and the columns of the HParams table for all runs in the folder.

    Args:
      folder: of final runs, or of tuning trials.
      horizons: those that have charts; none for tuning trials, which have no means.
      hparams: name -> a value of the type that its column gets.
      say: shows what was set aside.
    """
    events = Events(clock=lambda: 0.0)  # the same bytes in every run
    if groups := [_group(horizon) for horizon in sorted(horizons)]:
        events.summary(_layout(groups))
    events.summary(_table(hparams))
    folder.mkdir(parents=True, exist_ok=True)
    path = expect_file(folder / f"events.out.tfevents.{0:010d}.overview", say)
    replace_atomically(path, lambda file: file.write(events.take()))


def _group(horizon: int) -> layout_pb2.Category:
    charts = [
        layout_pb2.Chart(
            title=tag, multiline=layout_pb2.MultilineChartContent(tag=[f"^h{horizon}/{tag}$"])
        )
        for tag in CHARTS
    ]
    return layout_pb2.Category(title=f"{horizon} steps", chart=charts)


def _layout(groups: Sequence[layout_pb2.Category]) -> Summary:
    content = layout_pb2.Layout(category=groups).SerializeToString()
    value = Summary.Value(
        tag=custom_scalar.CONFIG_SUMMARY_TAG,
        tensor=tensor_util.make_tensor_proto(content, shape=()),
        metadata=custom_scalar.create_summary_metadata(),
    )
    return Summary(value=[value])


def _table(hparams: Mapping[str, Any]) -> Summary:
    """The columns: the optimizer, the horizon, the other hyperparameters; probe loss first."""
    known = {"optimizer": "", "horizon": 0.0, **hparams}
    infos = [api_pb2.HParamInfo(name=name, type=_type(value)) for name, value in known.items()]
    metrics = [
        api_pb2.MetricInfo(
            name=api_pb2.MetricName(tag=TAGS[name]), display_name=name.replace("_", " ")
        )
        for name in _METRICS
    ]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    value = Summary.Value(
        tag=hparams_metadata.EXPERIMENT_TAG,
        tensor=hparams_metadata.NULL_TENSOR,
        metadata=hparams_metadata.create_summary_metadata(
            plugin_data_pb2.HParamsPluginData(experiment=experiment)
        ),
    )
    return Summary(value=[value])


def _type(value: Any) -> Any:
    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    if isinstance(value, int | float):
        return api_pb2.DATA_TYPE_FLOAT64
    return api_pb2.DATA_TYPE_STRING

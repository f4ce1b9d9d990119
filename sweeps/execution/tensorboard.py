"""Writes each trial's TensorBoard event file while it trains. The files are never read back.

The horizontal axis counts gradient evaluations, so that a rule that takes two a step ends where the
others do.

An event holds the time at which it was written; all else is the same in every run of a trial.

TensorFlow is not needed.
"""

# pyright: reportAttributeAccessIssue=false
# TensorBoard's generated protobuf modules have no type stubs.

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.summary.writer.record_writer import RecordWriter

from distill_bench.files import replace_atomically
from distill_bench.training.exams import CURVE, HELDOUT_CURVE
from sweeps.planning.study import Study, Trial, content_id

TAGS = {
    CURVE: "probe/curve",
    HELDOUT_CURVE: "heldout/curve",
    "probe_loss": "probe/loss",
    "heldout_kl": "heldout/kl",
    "test_kl": "heldout/clean_kl",
    "agreement": "heldout/agreement",
    "accuracy": "heldout/accuracy",
    "agreement5": "heldout/agreement5",
    "label_xent": "heldout/label_cross_entropy",
    "euclidean": "heldout/logit_distance",
}
TRAIN_LOSS, LEARNING_RATE = "train/loss", "train/learning_rate"
_RATE_EVERY = 10  # steps between points of the learning-rate curve


class Events:
    """Events in memory, in the format of an event file."""

    def __init__(self, clock: Callable[[], float] = time.time):
        self._clock = clock
        self._buffer = io.BytesIO()
        self._records = RecordWriter(self._buffer)
        self._write(Event(wall_time=clock(), file_version="brain.Event:2"))

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

    def summary(self, summary: Summary, step: int = 0) -> None:
        self._write(Event(wall_time=self._clock(), step=step, summary=summary))

    def scalar(self, tag: str, value: float, step: int) -> None:
        self.summary(Summary(value=[Summary.Value(tag=tag, simple_value=value)]), step)

    def take(self) -> bytes:
        """The events since the last call."""
        taken = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return taken


class EventFile:
    """The event file of one run, alone in the run's folder.

    Attributes:
      events: what is to be written.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        # An interrupted run left its events; they are written again.
        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self._path = folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        self.events = Events()

    def write_whole(self) -> None:
        """Writes the file at once: it is complete or not there."""
        replace_atomically(self._path, lambda file: file.write(self.events.take()))

    def flush(self) -> None:
        """The file is open only here, because a sweep may have a thousand."""
        with open(self._path, "ab") as file:
            file.write(self.events.take())


class TrialCurves:
    """The curves of one trial. The value at step s is the one after s updates."""

    def __init__(
        self,
        folder: Path,
        study: Study,
        trial: Trial,
        learning_rate: Callable[[np.ndarray], Any],
        evaluations: float = 1.0,
    ):
        """
        Args:
          folder: of the run, see tensorboard_runs.py. What an earlier run left there goes.
          study: the trial's study.
          trial: the trial.
          learning_rate: steps -> the scheduled learning rates there.
          evaluations: gradient evaluations of a step.
        """
        self._file, self._evaluations = EventFile(folder), evaluations
        self._events = self._file.events
        configuration = {"optimizer": study.optimizer, "horizon": trial.horizon, **trial.hparams}
        # All seeds of a configuration form one session group, which the table calls by this name.
        digits = content_id([study.id, configuration])[:6]
        group = f"{study.optimizer} h{trial.horizon} {digits}"
        self._events.summary(
            hparams_summary.hparams_pb(configuration, trial_id=group, start_time_secs=time.time())
        )
        steps = np.arange(0, max(1, round(trial.horizon / evaluations)), _RATE_EVERY)
        for step, rate in zip(steps.tolist(), _rates(learning_rate, steps), strict=False):
            self._events.scalar(LEARNING_RATE, rate, self._place(step))

    def _place(self, step: int) -> int:
        """Where a step stands on the horizontal axis."""
        return round(step * self._evaluations)

    def losses(self, first: int, values: np.ndarray) -> None:
        for i, value in enumerate(values.tolist()):
            self._events.scalar(TRAIN_LOSS, value, self._place(first + i))
        self._file.flush()

    def point(
        self, step: int, metrics: dict[str, float], diagnostics: dict[str, float] | None = None
    ) -> None:
        for name, value in metrics.items():
            self._events.scalar(TAGS[name], value, self._place(step))
        for name, value in (diagnostics or {}).items():
            self._events.scalar(f"diagnostics/{name}", value, self._place(step))
        self._file.flush()

    def replay(self, records: Sequence[dict[str, Any]]) -> None:
        """Writes again the points that a trial recorded before it was interrupted."""
        for record in records:
            if "losses" in record:
                self.losses(record["first"], np.asarray(record["losses"]))
            elif "metrics" in record:
                self.point(record["step"], record["metrics"], record.get("diagnostics"))

    def finish(self, ok: bool) -> None:
        status = api_pb2.Status.STATUS_SUCCESS if ok else api_pb2.Status.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
        data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
        value = Summary.Value(
            tag=hparams_metadata.SESSION_END_INFO_TAG,
            tensor=hparams_metadata.NULL_TENSOR,
            metadata=hparams_metadata.create_summary_metadata(data),
        )
        self._events.summary(Summary(value=[value]))
        self._file.flush()


def _rates(learning_rate: Callable[[np.ndarray], Any], steps: np.ndarray) -> list[float]:
    """The learning rate at each step; none if it is not scheduled or the schedule, which may be a
    plug-in's and need only work inside jit, does not accept the steps."""
    try:
        rates = learning_rate(steps)
        return [] if rates is None else np.broadcast_to(rates, steps.shape).tolist()
    except Exception:
        return []

"""Traces a few chunks of training, in the format of XProf and TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import jax

from distill_bench.training.events import ChunkStarted, Compiled, Event, Losses

WARM = 1  # chunks that run before the trace
CHUNKS = 3  # at most, in the trace
# The trace ends with the chunk in which all trials together reach this many steps: on CPU each
# takes a hundred kilobytes.
STEPS = 100


class Profiler:
    """Writes one trace below `root`/plugins/profile; says where it is, or why there is none."""

    def __init__(self, root: Path, say: Callable[[str], None]):
        self._root, self._say = root, say
        self._chunks_run = 0
        # Within the trace; steps are summed over trials.
        self._chunks_traced = self._steps_traced = 0
        self._state: Literal["waiting", "tracing", "done"] = "waiting"

    def watch(self, events: Iterator[Event]) -> Iterator[Event]:
        """Passes the events on.

        The trace starts with a chunk, as soon as WARM chunks have run. It ends with these events,
        if not before.
        """
        running = False  # whether a chunk has started
        try:
            for event in events:
                match event:
                    case Compiled():
                        self._begin_if_warm()
                    case ChunkStarted():
                        if running:
                            self._end_chunk()
                        running = True
                    case Losses() if self._state == "tracing":
                        self._steps_traced += len(event.values)
                yield event
        finally:
            self._chunks_run += running
            self._end()

    def close(self) -> None:
        """Call when all training is over: says why there is no trace, if there is none."""
        if self._state == "waiting":
            why = (
                "only one chunk of steps ran, and the first is left out as a warm-up"
                if self._chunks_run
                else "nothing was left to run"
            )
            self._say(
                f"No profile was written: {why}. Train for more steps or use another --outdir."
            )

    def _end_chunk(self) -> None:
        self._chunks_run += 1
        self._chunks_traced += self._state == "tracing"
        if self._chunks_traced == CHUNKS or self._steps_traced >= STEPS:
            self._end()
        self._begin_if_warm()

    def _begin_if_warm(self) -> None:
        if self._state == "waiting" and self._chunks_run >= WARM:
            options = jax.profiler.ProfileOptions()
            # Tracing every call of a Python function would bury the programs.
            options.python_tracer_level = 0
            jax.profiler.start_trace(self._root, profiler_options=options)
            self._state = "tracing"

    def _end(self) -> None:
        if self._state == "tracing":
            self._state = "done"
            jax.profiler.stop_trace()
            file = max(
                self._root.glob("plugins/profile/*/*.xplane.pb"),
                key=lambda path: path.stat().st_mtime,
            )
            self._say(
                f"Profile of {self._steps_traced} steps: {file.parent}\n"
                "To view it: pip install xprof, then run "
                f"tensorboard --logdir {self._root} and open Profile."
            )

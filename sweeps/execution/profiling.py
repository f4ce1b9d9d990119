"""A trace of a few chunks of training, as XProf and TensorBoard read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from distill_bench.training.events import Compiled, Event, Losses, Waiting

WARM = 1  # chunks that run before the trace
CHUNKS = 3  # in the trace, at most
STEPS = 100  # of all trials together, after which the trace ends with the chunk: on CPU each leaves a hundred kilobytes


class Profiler:
    """Writes one trace below `root`/plugins/profile, and says where it is, or why there is none."""

    def __init__(self, root: Path, say: Callable[[str], None]):
        self._root, self._say = root, say
        self._ran = self._traced = self._steps = (
            0  # chunks ever; chunks and trials' steps since the trace began
        )
        self._ahead, self._tracing = True, False

    def watch(self, events: Iterator[Event]) -> Iterator[Event]:
        """The same events. The trace begins where a chunk does, once WARM of them ran, and ends with these events if not before."""
        waited: set[int] = (
            set()
        )  # for these lanes, in this chunk: who is waited for again has been sent through the next
        try:
            for event in events:
                match event:
                    case Compiled():
                        self._begin_if_warm()
                    case Waiting(lane) if lane in waited:
                        waited = {lane}
                        self._next_chunk()
                    case Waiting(lane):
                        waited.add(lane)
                    case Losses() if self._tracing:
                        self._steps += len(event.values)
                yield event
        finally:
            self._ran += bool(waited)
            self._end()

    def close(self) -> None:
        """All has run that will."""
        if self._ahead:
            why = (
                "only one chunk of steps ran, and the first is left out as a warm-up"
                if self._ran
                else "nothing was left to run"
            )
            self._say(f"No profile was written: {why}. More steps or another --outdir give one.")

    def _next_chunk(self) -> None:
        self._ran += 1
        self._traced += self._tracing
        if self._traced == CHUNKS or self._steps >= STEPS:
            self._end()
        self._begin_if_warm()

    def _begin_if_warm(self) -> None:
        if self._ahead and self._ran >= WARM:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = (
                0  # every call of a Python function would bury the programs
            )
            jax.profiler.start_trace(self._root, profiler_options=options)
            self._ahead, self._tracing = False, True

    def _end(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            file = max(
                self._root.glob("plugins/profile/*/*.xplane.pb"),
                key=lambda path: path.stat().st_mtime,
            )
            self._say(
                f"Profile of {self._steps} steps: {file.parent}; pip install xprof, then tensorboard --logdir {self._root} shows it under Profile."
            )

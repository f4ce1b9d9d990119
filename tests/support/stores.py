"""Helpers for tests of sweeps: a silent display, and the contents of a store."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


class Silent:
    """A display that keeps its messages in `said`."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self, label, steps):
        pass

    def advance(self, steps):
        pass

    def suspect(self, optimizers):
        pass

    def say(self, text):
        self.said.append(text)


def rows(script, *flags):
    """The rows that sweeps/leaderboard.py prints as JSON."""
    done = script("leaderboard", "--format=json", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def contents(folder):
    """All JSON files of a store's studies, as text, without the results' environment and digest."""
    found = {}
    for path in sorted(folder.rglob("*.json*")):
        if path.name == "names.json":  # of TensorBoard's folders
            continue
        content = path.read_text()
        if path.name == "result.json":
            content = json.dumps(
                {
                    name: value
                    for name, value in json.loads(content).items()
                    if name not in ("environment", "sha256")
                }
            )
        found[str(path.relative_to(folder))] = content
    return found


def unseal(path: Path) -> None:
    """Takes the digest out of a result.json or study.json, as earlier versions wrote it."""
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content, indent=1))


def files(root: Path) -> dict[str, bytes | list[bytes]]:
    """Every file of a store with its bytes, and every folder.

    Of a trial's event file: the events without their times, under a name without time and host.
    Not worker.log, which holds what processes printed.
    """
    found: dict[str, bytes | list[bytes]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.name.startswith("events.") and path.parent != root:
            name = str(path.parent.relative_to(root) / "events")
            assert name not in found, f"two event files in {path.parent}"
            found[name] = [_timeless(event) for event in RawEventFileLoader(str(path)).Load()]
        elif name != "worker.log":
            found[name] = path.read_bytes() if path.is_file() else b"a folder"
    return found


def _timeless(content: bytes) -> bytes:
    """The event without the time at which it was written."""
    event = Event.FromString(content)
    event.ClearField("wall_time")
    for value in event.summary.value:
        if value.metadata.plugin_data.plugin_name == "hparams":
            data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
            data.session_start_info.ClearField("start_time_secs")
            data.session_end_info.ClearField("end_time_secs")
            value.metadata.plugin_data.content = data.SerializeToString(deterministic=True)
    return event.SerializeToString(deterministic=True)

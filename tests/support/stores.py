"""Helpers for tests of sweeps: a silent display, and the contents of a store."""

from __future__ import annotations

import json


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
    """All files of a store, as text, without the environment of the results."""
    found = {}
    for path in sorted(folder.rglob("*.json*")):
        content = path.read_text()
        if path.name == "result.json":
            content = json.dumps(
                {k: v for k, v in json.loads(content).items() if k != "environment"}
            )
        found[str(path.relative_to(folder))] = content
    return found

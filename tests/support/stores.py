"""Stores of results: what is in them, and a display that keeps what it was shown."""

from __future__ import annotations

import json


class Silent:
    """A display that keeps what it was told."""

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
    done = script("leaderboard", "--format=json", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def contents(folder):
    """All records and results of a store, without what a clock or a machine wrote."""
    found = {}
    for path in sorted(folder.rglob("*.json*")):
        content = path.read_text()
        if path.name == "result.json":
            content = json.dumps(
                {k: v for k, v in json.loads(content).items() if k != "environment"}
            )
        found[str(path.relative_to(folder))] = content
    return found

"""Contradictions inside an entry, which need no rerun to be found."""

from __future__ import annotations

import json

import pytest

from sweeps.board import entries
from sweeps.board.consistency import inconsistencies

HORIZONS = (4, 8, 16)  # of board_folder's entries


def edit(change):
    def edited(text):
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edited


@pytest.mark.parametrize(
    ("spoil", "contradiction"),
    [
        (
            lambda c: c["sources"].update(
                {"calm.py": c["sources"]["calm.py"].replace("0.9", "0.8")}
            ),
            "its source files do not match",
        ),
        (
            lambda c: c["rungs"][1]["winner"].update(lr=0.123),
            "horizon 8: its final runs do not use its best trial",
        ),
        *(
            (
                lambda c, i=i: c["rungs"][i]["tuning"][2]["hparams"].update(lr=0.123),
                f"horizon {h}: its trials are not those that the search chooses in its space",
            )
            for i, h in enumerate(HORIZONS)
        ),
        (
            # Good places that a wider look found, said to be those of the search.
            lambda c: [
                run["hparams"].update(lr=0.3 + 0.01 * i)
                for i, run in enumerate(c["rungs"][0]["tuning"])
            ],
            "horizon 4: its trials are not those",
        ),
        (
            lambda c: c["study"]["space"]["lr"].update(high=2.0),
            "horizon 4: its trials are not those",
        ),
        (
            # The search goes on from the losses: with others, it would have gone elsewhere.
            lambda c: [
                run["final"].update(probe_loss=2.0 / run["final"]["probe_loss"])
                for run in c["rungs"][0]["tuning"]
            ],
            "its trials are not those",
        ),
    ],
)
def test_an_altered_entry_is_inconsistent(board_folder, spoil, contradiction):
    path = board_folder / "tiny" / "calm.json"
    path.write_text(edit(spoil)(path.read_text()))
    assert contradiction in " ".join(inconsistencies(entries.read(path)))


def test_a_comment_does_not_change_the_source_digest(board_folder):
    path = board_folder / "tiny" / "calm.json"
    path.write_text(
        edit(lambda c: c["sources"].update({"calm.py": c["sources"]["calm.py"] + "# a remark\n"}))(
            path.read_text()
        )
    )
    assert inconsistencies(entries.read(path)) == []

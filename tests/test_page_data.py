"""The leaderboard's page with hostile, empty, old and very large data."""

from __future__ import annotations

import copy
import json
import re

import pytest

from support import boards
from support.browsers import column, leading, names, pick, script
from sweeps.board.page import render

HOSTILE = (
    "<img src=x onerror=window.pwned=1>",
    "</script><script>window.pwned=1</script>",
    "<!--<script>window.pwned=1",
    "javascript:window.pwned=1",
    "\"'`${window.pwned=1}",
    "$policy {{board}}",
    "__proto__",
    "<style>*{display:none}</style>",
    "n" * 10_000,
)


def test_embedded_data_cannot_end_its_element():
    board = boards.mutated(
        lambda board: board["entries"][1].update(
            optimizer="".join(HOSTILE) + "\u2028\u2029", warnings=["&amp;"]
        )
    )
    document = render(board)
    assert len(re.findall("<script", document)) == len(re.findall("</script", document)) == 2
    data = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', document, re.DOTALL
    )
    assert data
    assert data[1].isascii()
    assert not set("<>&") & set(data[1])
    assert json.loads(data[1])["entries"][1]["optimizer"] == board["entries"][1]["optimizer"]
    assert render(copy.deepcopy(board)) == document
    assert not re.search(
        r"\b(src|href)=(?!\"(#table-section|data:,)\")", document.replace(data[1], "")
    )
    assert not re.search(
        "innerHTML|outerHTML|insertAdjacentHTML|document.write|eval|style=",
        document.replace(data[1], ""),
    )


def test_numbers_must_be_finite():
    with pytest.raises(ValueError, match="JSON"):
        render(
            boards.mutated(lambda board: board["entries"][0]["overall"].update(value=float("nan")))
        )


@pytest.mark.parametrize(
    "text",
    [*HOSTILE, "left\u202eright\u2066", "tab\tnul\0bell\a\u2028"],
    ids=lambda text: ascii(text[:16]),
)
def test_hostile_strings_are_shown_as_text(show, text):
    def infect(board):
        for name in ("brisk", "calm"):
            board["tasks"][0]["profile"][text] = board["tasks"][0]["profile"].pop(name)
        board["tasks"][0]["disagreements"][0]["lower_loss"] = text
        board["warnings"].append(text)
        for entry in board["entries"][1:]:
            entry.update(
                optimizer=text,
                spec=text,
                source_sha256=text,
                warnings=[text],
                reaches=[text],
                reproduce=[text],
                space={text: {"kind": text}},
            )
            entry["environment"] = {text: text}
            entry["verification"] = {"verdict": text, "detail": text, "date": text}
            for rung in entry["rungs"]:
                rung["hparams"][text] = text
        board["made"][text] = text

    browser = show(boards.mutated(infect))
    script(browser, "all('.expand').forEach((button) => button.click())")
    spelled = re.sub(
        "[\x00-\x1f\u2028\u202e\u2066]", lambda match: f"⟨U+{ord(match[0]):04X}⟩", text
    )
    assert names(browser).count(spelled) == 3
    assert (
        script(browser, "return all('.detail .command').map((code) => code.textContent)").count(
            spelled
        )
        == 3
    )
    assert script(browser, "return window.pwned ?? null") is None
    assert (
        script(
            browser,
            "return all('img, iframe, object, embed, a:not(.skip), body style, [onerror]').length",
        )
        == 0
    )
    assert script(browser, "return document.documentElement.scrollWidth <= innerWidth")
    assert script(
        browser, "return Math.max(...all('tr.entry').map((row) => row.offsetHeight)) < 80"
    )


def test_an_empty_board_says_so(show):
    for board in (boards.board(0), {}):
        browser = show(board)
        assert "no optimizer has an entry yet" in script(browser, "return one('#empty').innerText")
        assert names(browser) == []


def test_parts_missing_from_old_boards_are_no_error(show):
    """One entry has only its name; another has null for every optional part."""

    def strip(board):
        bare = {key: board["entries"][1][key] for key in ("task", "optimizer")}
        board["entries"][1] = bare | {"rungs": [{"horizon": 250, "mean": {"probe_loss": 0.2}}]}
        for key in (
            "cost",
            "verification",
            "overall",
            "environment",
            "space",
            "fixed",
            "reproduce",
            "warnings",
            "reaches",
        ):
            board["entries"][2][key] = None
        for rung in board["entries"][2]["rungs"]:
            rung.update(
                std=None,
                speedup=None,
                best_after=None,
                sensitivity=None,
                mean=None,
                hparams=None,
                curve=None,
                tried=None,
            )
        board["tasks"][0] = {"name": board["tasks"][0]["name"]}

    browser = show(boards.mutated(strip))
    assert len(names(browser)) == 4
    script(browser, "all('.expand').forEach((button) => button.click())")
    assert script(browser, "return all('.detail').length") == 4
    # Nothing says that the baseline's longer rungs do not count.
    assert "1 of 4 rungs" in script(browser, "return one('tr[data-entry=\"1\"]').textContent")
    script(
        browser,
        "all('th[data-key]').map((cell) => cell.dataset.key)"
        ".forEach((key) => one(`th[data-key=${key}] button`).click())",
    )
    assert len(names(browser)) == 4


@pytest.mark.parametrize("numbers", [(5e-324, 1e300), (1e-300,) * 2, (1e300, 1e300 * (1 + 2e-16))])
def test_numbers_at_the_ends_of_their_range_are_drawn(show, numbers):
    """No axis is endless, and none has steps finer than its numbers."""

    def spoil(board):
        for i, entry in enumerate(board["entries"]):
            number = numbers[i % 2]
            cost = dict.fromkeys(("step_ms", "relative", "state_bytes_per_parameter"), number)
            entry["cost"].update(cost)
            entry["overall"] |= {"value": number, "low": 5e-324, "high": 1e300}
            for rung in entry["rungs"]:
                rung["mean"]["probe_loss"] = rung["std"]["probe_loss"] = number
                rung["speedup"] |= {"value": number, "low": 5e-324, "high": 1e300}
                rung["best_after"] = [numbers[0], numbers[1]]
                for name in ("probe_loss", "train_loss"):
                    rung["curve"][name] = [[number] * len(one) for one in rung["curve"][name]]
                for j, trial in enumerate(rung["tried"]):
                    trial["probe_loss"] = trial["hparams"]["lr"] = numbers[j % 2]
        for profile in board["tasks"][0]["profile"].values():
            profile["ratios"] = [1.0, 1e300]

    browser = show(boards.mutated(spoil))
    assert len(names(browser)) == 4
    assert script(browser, "return all('.plot svg').length") == 6
    pick(browser, "#cost input[value=bytes]")
    drawn = script(browser, "return all('.plot path').map((path) => path.getAttribute('d'))")
    assert [path for path in drawn if "NaN" in path or "Infinity" in path] == []


def test_five_hundred_entries(show):
    browser = show(boards.board(500, horizons=(250,)))
    assert script(browser, "return one('#count').textContent") == "500 of 500 entries"
    assert (len(names(browser)), script(browser, "return one('#rest').textContent")) == (
        100,
        "Show 400 more",
    )
    pick(browser, "#rest")
    pick(browser, "th[data-key=probe_loss] button")
    losses = leading(column(browser, "probe_loss"))
    assert len(losses) == 500
    assert losses == sorted(losses)
    pick(browser, "#choice-buttons button:nth-child(2)")
    assert script(browser, "return all('#convergence .series').length") == 30

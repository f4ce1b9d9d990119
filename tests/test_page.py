"""The leaderboard's page in a real browser: what it shows, what it lets one do, and what hostile data cannot do."""

from __future__ import annotations

import copy
import json
import os
import re

import boards
import browsers
import pytest

from sweeps.page import render

FIGURES = ("convergence", "patience", "sensitivity", "best-after", "pareto", "profile")
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


@pytest.fixture(scope="module")
def browser():
    if not browsers.installed():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(browsers.MISSING)
    opened = browsers.open_browser()
    yield opened
    opened.quit()


@pytest.fixture
def show(browser, tmp_path):
    """Opens a board, from a file; in the end the console must hold nothing."""

    from selenium.webdriver.support.ui import WebDriverWait

    def opened(board):
        path = tmp_path / "page.html"
        path.write_text(render(board), encoding="utf-8")
        browser.get(path.as_uri())
        WebDriverWait(browser, 30).until(
            lambda b: b.execute_script("return document.querySelector('#count').textContent || !document.querySelector('#empty').hidden")
        )
        return browser

    browsers.resize(browser, 1280)
    browsers.media(browser, prefers_color_scheme="light")
    browser.get_log("browser")
    yield opened
    assert browser.get_log("browser") == []


def script(browser, code, *arguments):
    short = "const all = (path) => [...document.querySelectorAll(path)]; const one = (path) => document.querySelector(path);"
    return browser.execute_script(short + code, *arguments)


def column(browser, key):
    return script(browser, "return all(`tbody tr.entry .col-${arguments[0]}`).map((cell) => cell.textContent)", key)


def names(browser):
    return script(browser, "return all('tr.entry .expand').map((button) => button.textContent)")


def pick(browser, path):
    script(browser, "one(arguments[0]).click()", path)


def write(browser, text):
    script(browser, "const box = one('#filter'); box.value = arguments[0]; box.dispatchEvent(new Event('input', { bubbles: true }))", text)


def leading(cells):
    """The number that each cell starts with; what has none comes last in either direction."""
    found = [re.search(r"-?\d+(\.\d+)?(e-?\d+)?", cell) for cell in cells]
    return [float(match[0]) if match else None for match in found]


def mutated(change):
    board = boards.board(4, horizons=(250, 500))
    change(board)
    return board


def test_embedded_data_cannot_end_its_element():
    board = mutated(lambda board: board["entries"][1].update(optimizer="".join(HOSTILE) + "\u2028\u2029", warnings=["&amp;"]))
    document = render(board)
    assert len(re.findall("<script", document)) == len(re.findall("</script", document)) == 2
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', document, re.DOTALL)
    assert data
    assert data[1].isascii()
    assert not set("<>&") & set(data[1])
    assert json.loads(data[1])["entries"][1]["optimizer"] == board["entries"][1]["optimizer"]
    assert render(copy.deepcopy(board)) == document
    assert not re.search(r"\b(src|href)=(?!\"(#table-section|data:,)\")", document.replace(data[1], ""))
    assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval|style=", document.replace(data[1], ""))


def test_numbers_have_to_be_finite():
    with pytest.raises(ValueError, match="JSON"):
        render(mutated(lambda board: board["entries"][0]["overall"].update(value=float("nan"))))


def test_draws_every_figure_and_all_rows(show):
    browser = show(boards.board())
    assert len(names(browser)) == 12
    for figure in FIGURES:
        drawn = script(browser, "return all(`#${arguments[0]} .plot svg .series:not(.arrows)`).length", figure)
        assert drawn == (12 if figure == "pareto" else 6), figure
        assert script(browser, "return all(`#${arguments[0]} .plot [d*=NaN], #${arguments[0]} .plot [y='NaN']`).length", figure) == 0
    assert script(browser, "return all('#certificates tbody tr').length") == 6
    assert script(browser, "return all('#disagreements tbody tr').length") == 5
    assert script(browser, "return all('#warning-list li').length") > 1
    assert script(browser, "return all('table:not(:has(caption)), table th:not([scope]), svg:not([role=img], [aria-hidden])').length") == 0


def test_sorts_by_every_column_with_mouse_and_keyboard(show):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = show(boards.board())
    assert script(browser, "return one('[aria-sort=ascending]').dataset.key") == "rank"
    for i, key in enumerate(script(browser, "return all('#table thead th').map((cell) => cell.dataset.key)")):
        seen = set()
        for press in (None, (Keys.ENTER, Keys.SPACE)[i % 2]):
            button = browser.find_element(By.CSS_SELECTOR, f"th[data-key={key}] button")
            button.send_keys(press) if press else script(browser, "arguments[0].click()", button)
            active = script(browser, "return all('th[data-key]:not([aria-sort=none])').map((cell) => [cell.dataset.key, cell.ariaSort])")
            direction = active[0][1]
            assert active == [[key, direction]]
            seen.add(direction)
            cells = column(browser, key)
            values = names(browser) if key == "optimizer" else leading(cells)
            if key == "failed":
                values = [sum(map(int, cell.split(" + "))) if "+" in cell else 0 for cell in cells]
            if key == "verdict":
                values = [("✗", "n", "✓").index(cell[0]) for cell in cells]
            if key == "warnings":
                values = [value or 0 for value in values]
            known = [value for value in values if value is not None]
            assert values == sorted(known, reverse=direction == "descending") + [None] * (len(values) - len(known)), key
            if press:
                assert script(browser, "return document.activeElement.closest('th')?.dataset.key") == key
        assert seen == {"ascending", "descending"}, key


def test_ties_share_a_bracket(show):
    browser = show(boards.board(5))
    assert column(browser, "rank") == ["1", "1", "2", "2", "3"]
    bracket = "return all('tr.entry').map((row) => ['tie-start', 'tie-end', 'tied'].find((name) => row.classList.contains(name)) ?? '')"
    assert script(browser, bracket) == ["tie-start", "tie-end", "tie-start", "tie-end", ""]
    pick(browser, "th[data-key=optimizer] button")
    assert script(browser, "return all('.tied').length") == 0


def test_filters_by_task_horizon_and_text(show):
    board, other = boards.board(6), boards.board(3, seed=1, task="other", horizons=(100, 300))
    board["tasks"] += other["tasks"]
    board["entries"] += other["entries"]
    browser = show(board)
    assert script(browser, "return one('#count').textContent") == "6 of 6 entries"
    write(browser, "CAL")
    assert (names(browser), script(browser, "return one('#count').textContent")) == (["calm"], "1 of 6 entries")
    write(browser, "no such name")
    assert script(browser, "return [one('#empty').hidden, one('#table-scroll').hidden]") == [False, True]
    write(browser, "")
    overall = column(browser, "probe_loss")
    pick(browser, "#horizon input[value='500']")
    assert column(browser, "probe_loss") != overall
    assert all("±" in cell for cell in column(browser, "probe_loss"))
    assert "runs of 500 steps" in script(browser, "return one('#convergence figcaption').textContent")
    script(browser, "const box = one('#task'); box.selectedIndex = 1; box.dispatchEvent(new Event('change'))")
    assert len(names(browser)) == 3
    assert script(browser, "return all('#horizon input').map((input) => input.value)") == ["all", "100", "300"]


def test_bounds_are_arrows_and_intervals_whiskers(show):
    def censor(board):
        board["entries"][1]["overall"] = {"value": 2.0, "bound": ">", "rungs": [250, 500], "rank": 1}
        board["entries"][2]["overall"] = {"value": 0.5, "bound": "<", "rungs": [250, 500], "rank": 2}

    browser = show(mutated(censor))
    cells = dict(zip(names(browser), column(browser, "speedup"), strict=True))
    assert cells["brisk"] == ">2.00×"
    assert cells["calm"] == "<0.50×"
    assert re.fullmatch(r"\d\.\d\d×\[\d\.\d\d, \d\.\d\d\]", cells["drift"])
    assert script(browser, "return [all('.whisker .beyond').length, all('#table .whisker .reach').length]") == [2, 1]


def test_chosen_optimizers_and_toggles_change_the_curves(show):
    browser = show(boards.board())
    colours = "return all('#convergence .series').map((group) => [group.dataset.entry, group.getAttribute('class')])"
    before = dict(script(browser, colours))
    pick(browser, "#choice-list label:nth-child(3) input")
    pick(browser, "#choice-list label:nth-child(9) input")
    after = dict(script(browser, colours))
    assert len(after) == len(before)
    assert len(set(after) - set(before)) == 1
    assert {entry: after[entry] for entry in set(after) & set(before)} == {entry: before[entry] for entry in set(after) & set(before)}
    lines = "return all('#convergence .line').map((line) => line.getAttribute('d')).join()"
    losses = script(browser, lines)
    pick(browser, "#metric input[value=gap]")
    assert script(browser, lines) != losses
    assert "Generalization gap" in script(browser, "return one('#convergence svg').getAttribute('aria-label')")
    assert script(browser, "return all('#patience .arrows .arrow').length") > 0
    pick(browser, "#cost input[value=bytes]")
    assert "bytes per parameter" in script(browser, "return one('#pareto figcaption').textContent")
    pick(browser, "#choice-buttons button:nth-child(3)")
    assert script(browser, "return all('#convergence .series').length") == 0
    assert script(browser, "return all('#convergence .empty').length") == 1


def test_a_row_opens_to_its_details_by_keyboard(show):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    board = boards.board(4)
    browser = show(board)
    button = browser.find_element(By.CSS_SELECTOR, ".expand")
    button.send_keys(Keys.ENTER)
    entry = board["entries"][int(script(browser, "return arguments[0].closest('tr').dataset.entry", button))]
    assert button.get_attribute("aria-expanded") == "true"
    detail = script(browser, "return one('#' + arguments[0].getAttribute('aria-controls')).textContent", button)
    for text in (*entry["reproduce"], entry["source_sha256"], "weight_decay", "0.10.2", "0.01 to 0.3, logarithmic"):
        assert text in detail
    assert script(browser, "return all('.detail .command').map((code) => code.textContent)") == entry["reproduce"]
    button.send_keys(Keys.SPACE)
    assert script(browser, "return all('.detail-row').length") == 0


@pytest.mark.parametrize("text", [*HOSTILE, "left\u202eright\u2066", "tab\tnul\0bell\a\u2028"], ids=lambda text: ascii(text[:16]))
def test_hostile_strings_are_text(show, text):
    def infect(board):
        for name in ("brisk", "calm"):
            board["tasks"][0]["profile"][text] = board["tasks"][0]["profile"].pop(name)
        board["tasks"][0]["disagreements"][0]["lower_loss"] = text
        board["warnings"].append(text)
        for entry in board["entries"][1:]:
            entry.update(optimizer=text, spec=text, source_sha256=text, warnings=[text], reproduce=[text], space={text: {"kind": text}})
            entry["environment"] = {text: text}
            entry["verification"] = {"verdict": text, "detail": text, "date": text}
            for rung in entry["rungs"]:
                rung["hparams"][text] = text
        board["made"][text] = text

    browser = show(mutated(infect))
    script(browser, "all('.expand').forEach((button) => button.click())")
    spelled = re.sub("[\x00-\x1f\u2028\u202e\u2066]", lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)
    assert names(browser).count(spelled) == 3
    assert script(browser, "return all('.detail .command').map((code) => code.textContent)").count(spelled) == 3
    assert script(browser, "return window.pwned ?? null") is None
    assert script(browser, "return all('img, iframe, object, embed, a:not(.skip), body style, [onerror]').length") == 0
    assert script(browser, "return document.documentElement.scrollWidth <= innerWidth")
    assert script(browser, "return Math.max(...all('tr.entry').map((row) => row.offsetHeight)) < 80")


def test_light_and_dark_can_be_read(show, browser):
    """The text's contrast with the page is at least 7 to 1 in either scheme, and that of the lines' colours at least 3 to 1."""

    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(a, b):
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    papers = set()
    for scheme in ("light", "dark"):
        browsers.media(browser, prefers_color_scheme=scheme)
        show(boards.board())
        pick(browser, "#choice-buttons button:nth-child(2)")
        paper = script(browser, "return getComputedStyle(document.body).backgroundColor")
        ink, soft = script(browser, "return ['body', '.facts'].map((path) => getComputedStyle(one(path)).color)")
        lines = script(browser, "return all('#convergence .series').map((group) => getComputedStyle(group).color)")
        papers.add(paper)
        assert contrast(paper, ink) > 7
        assert contrast(paper, soft) > 4.5
        assert min(contrast(paper, line) for line in lines) > 3
    assert len(papers) == 2


def test_a_phone_scrolls_tables_and_not_the_page(show, browser):
    browsers.resize(browser, 360, 740)
    show(boards.board())
    script(browser, "all('.expand').forEach((button) => button.click())")
    assert script(browser, "return innerWidth") == 360
    assert script(browser, "return document.documentElement.scrollWidth") <= 360
    assert script(browser, "const box = one('#table-scroll'); return box.scrollWidth > box.clientWidth")
    assert script(browser, "return Math.max(...all('.plot svg').map((svg) => svg.getBoundingClientRect().right))") <= 360
    assert script(browser, "return Math.max(...all('.detail').map((block) => block.offsetWidth))") <= 360


def test_reduced_motion_and_focus(show, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browsers.media(browser, prefers_reduced_motion="reduce")
    show(boards.board(4))
    assert script(browser, "return getComputedStyle(one('.chevron')).transitionDuration") == "0s"
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert script(browser, "return document.activeElement.className") == "skip"
    assert script(browser, "return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert script(browser, "return document.activeElement.getBoundingClientRect().left") >= 0


def test_an_empty_board_says_so(show):
    for board in (boards.board(0), {}):
        browser = show(board)
        assert "no optimizer has an entry yet" in script(browser, "return one('#empty').innerText")
        assert names(browser) == []


def test_old_boards_lack_parts(show):
    """An entry with nothing but a name, and one whose optional parts are null."""

    def strip(board):
        bare = {key: board["entries"][1][key] for key in ("task", "optimizer")}
        board["entries"][1] = bare | {"rungs": [{"horizon": 250, "mean": {"probe_loss": 0.2}}]}
        for key in ("cost", "verification", "overall", "environment", "space", "fixed", "reproduce", "warnings"):
            board["entries"][2][key] = None
        for rung in board["entries"][2]["rungs"]:
            rung.update(std=None, speedup=None, best_after=None, sensitivity=None, mean=None, hparams=None, curve=None, tried=None)
        board["tasks"][0] = {"name": board["tasks"][0]["name"]}

    browser = show(mutated(strip))
    assert len(names(browser)) == 4
    script(browser, "all('.expand').forEach((button) => button.click())")
    assert script(browser, "return all('.detail').length") == 4
    assert "1 of 2 rungs" in script(browser, "return one('tr[data-entry=\"1\"]').textContent")
    script(browser, "all('th[data-key]').map((cell) => cell.dataset.key).forEach((key) => one(`th[data-key=${key}] button`).click())")
    assert len(names(browser)) == 4


def test_five_hundred_entries(show):
    browser = show(boards.board(500, horizons=(250,)))
    assert script(browser, "return one('#count').textContent") == "500 of 500 entries"
    assert (len(names(browser)), script(browser, "return one('#rest').textContent")) == (100, "Show 400 more")
    pick(browser, "#rest")
    pick(browser, "th[data-key=probe_loss] button")
    losses = leading(column(browser, "probe_loss"))
    assert len(losses) == 500
    assert losses == sorted(losses)
    pick(browser, "#choice-buttons button:nth-child(2)")
    assert script(browser, "return all('#convergence .series').length") == 30

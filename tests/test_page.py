"""The leaderboard's page in a real browser: its content, controls and screen sizes."""

from __future__ import annotations

import re

from support import boards, browsers
from support.browsers import column, leading, names, pick, script

FIGURES = ("convergence", "patience", "sensitivity", "best-after", "pareto", "profile")


def write(browser, text):
    script(
        browser,
        "const box = one('#filter'); box.value = arguments[0];"
        "box.dispatchEvent(new Event('input', { bubbles: true }))",
        text,
    )


def test_draws_every_figure_and_all_rows(show):
    browser = show(boards.board())
    assert len(names(browser)) == 12
    for figure in FIGURES:
        drawn = script(
            browser, "return all(`#${arguments[0]} .plot svg .series:not(.arrows)`).length", figure
        )
        assert drawn == (12 if figure == "pareto" else 6), figure
        assert (
            script(
                browser,
                "const plot = `#${arguments[0]} .plot`;"
                "return all(`${plot} [d*=NaN], ${plot} [y='NaN']`).length",
                figure,
            )
            == 0
        )
    assert script(browser, "return all('#certificates tbody tr').length") == 4
    assert script(browser, "return all('#disagreements tbody tr').length") == 5
    assert script(browser, "return all('#tune-checks li').length") == 2
    assert script(browser, "return all('#across tbody tr').length") == 6
    assert script(browser, "return all('#published tbody tr').length") == 2
    against = script(browser, "return all('#published li li').map((one) => one.textContent)")
    assert against == ["Somebody 2025: the second is better than the first."]
    assert script(browser, "return all('#warning-list li').length") > 1
    assert (
        script(
            browser,
            "return all('table:not(:has(caption)), table th:not([scope]),"
            " svg:not([role=img], [aria-hidden])').length",
        )
        == 0
    )


def test_sorts_by_every_column_with_mouse_and_keyboard(show):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = show(boards.board())
    assert script(browser, "return one('[aria-sort=ascending]').dataset.key") == "rank"
    for i, key in enumerate(
        script(browser, "return all('#table thead th').map((cell) => cell.dataset.key)")
    ):
        directions = set()
        for press in (None, (Keys.ENTER, Keys.SPACE)[i % 2]):
            button = browser.find_element(By.CSS_SELECTOR, f"th[data-key={key}] button")
            button.send_keys(press) if press else script(browser, "arguments[0].click()", button)
            active = script(
                browser,
                "return all('th[data-key]:not([aria-sort=none])')"
                ".map((cell) => [cell.dataset.key, cell.ariaSort])",
            )
            direction = active[0][1]
            assert active == [[key, direction]]
            directions.add(direction)
            cells = column(browser, key)
            values = names(browser) if key == "optimizer" else leading(cells)
            if key == "failed":
                values = [sum(map(int, cell.split(" + "))) if "+" in cell else 0 for cell in cells]
            if key == "verdict":
                values = [("✗", "n", "✓").index(cell[0]) for cell in cells]
            if key == "warnings":
                values = [value or 0 for value in values]
            known = [value for value in values if value is not None]
            assert values == sorted(known, reverse=direction == "descending") + [None] * (
                len(values) - len(known)
            ), key
            if press:
                assert (
                    script(browser, "return document.activeElement.closest('th')?.dataset.key")
                    == key
                )
        assert directions == {"ascending", "descending"}, key


def test_ties_share_a_bracket(show):
    browser = show(boards.board(5))
    assert column(browser, "rank") == ["1", "1", "2", "2", "3"]
    bracket = (
        "const names = ['tie-start', 'tie-end', 'tied'];"
        "return all('tr.entry').map((row) => names.find((n) => row.classList.contains(n)) ?? '')"
    )
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
    assert (names(browser), script(browser, "return one('#count').textContent")) == (
        ["calm"],
        "1 of 6 entries",
    )
    write(browser, "no such name")
    assert script(browser, "return [one('#empty').hidden, one('#table-scroll').hidden]") == [
        False,
        True,
    ]
    write(browser, "")
    overall = column(browser, "probe_loss")
    pick(browser, "#horizon input[value='500']")
    assert column(browser, "probe_loss") != overall
    assert all("±" in cell for cell in column(browser, "probe_loss"))
    assert "runs of 500 steps" in script(
        browser, "return one('#convergence figcaption').textContent"
    )
    script(
        browser,
        "const box = one('#task'); box.selectedIndex = 1; box.dispatchEvent(new Event('change'))",
    )
    assert len(names(browser)) == 3
    assert script(browser, "return all('#horizon input').map((input) => input.value)") == [
        "all",
        "100",
        "300",
        "600",
        "1200",
    ]


def test_bounds_are_arrows_and_intervals_whiskers(show):
    def censor(board):
        board["entries"][1]["overall"] = {
            "value": 2.0,
            "bound": ">",
            "rungs": [250, 500],
            "rank": 1,
        }
        board["entries"][2]["overall"] = {
            "value": 0.5,
            "bound": "<",
            "rungs": [250, 500],
            "rank": 2,
        }

    browser = show(boards.mutated(censor))
    cells = dict(zip(names(browser), column(browser, "speedup"), strict=True))
    assert cells["brisk"] == ">2.00×"
    assert cells["calm"] == "<0.50×"
    assert re.fullmatch(r"\d\.\d\d×\[\d\.\d\d, \d\.\d\d\]", cells["drift"])
    assert script(
        browser, "return [all('.whisker .beyond').length, all('#table .whisker .reach').length]"
    ) == [2, 1]


def test_chosen_optimizers_and_toggles_change_the_curves(show):
    browser = show(boards.board())
    colours = (
        "return all('#convergence .series')"
        ".map((group) => [group.dataset.entry, group.getAttribute('class')])"
    )
    before = dict(script(browser, colours))
    pick(browser, "#choice-list label:nth-child(3) input")
    pick(browser, "#choice-list label:nth-child(9) input")
    after = dict(script(browser, colours))
    assert len(after) == len(before)
    assert len(set(after) - set(before)) == 1
    assert {entry: after[entry] for entry in set(after) & set(before)} == {
        entry: before[entry] for entry in set(after) & set(before)
    }
    lines = "return all('#convergence .line').map((line) => line.getAttribute('d')).join()"
    losses = script(browser, lines)
    pick(browser, "#metric input[value=train_loss]")
    assert script(browser, lines) != losses
    assert "Training loss" in script(
        browser, "return one('#convergence svg').getAttribute('aria-label')"
    )
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
    entry = board["entries"][
        int(script(browser, "return arguments[0].closest('tr').dataset.entry", button))
    ]
    assert button.get_attribute("aria-expanded") == "true"
    detail = script(
        browser, "return one('#' + arguments[0].getAttribute('aria-controls')).textContent", button
    )
    for text in (
        *entry["reproduce"],
        entry["source_sha256"],
        "weight_decay",
        "0.10.2",
        "0.01 to 0.3, logarithmic",
    ):
        assert text in detail
    assert (
        script(browser, "return all('.detail .command').map((code) => code.textContent)")
        == entry["reproduce"]
    )
    button.send_keys(Keys.SPACE)
    assert script(browser, "return all('.detail-row').length") == 0


def test_light_and_dark_are_readable(show, browser):
    """In both schemes, text has a contrast of at least 7 to 1 and lines have at least 3 to 1."""

    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return sum(
            weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
        )

    def contrast(a, b):
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    papers = set()
    for scheme in ("light", "dark"):
        browsers.media(browser, prefers_color_scheme=scheme)
        show(boards.board())
        pick(browser, "#choice-buttons button:nth-child(2)")
        paper = script(browser, "return getComputedStyle(document.body).backgroundColor")
        ink, soft = script(
            browser, "return ['body', '.facts'].map((path) => getComputedStyle(one(path)).color)"
        )
        lines = script(
            browser,
            "return all('#convergence .series').map((group) => getComputedStyle(group).color)",
        )
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
    assert script(
        browser, "const box = one('#table-scroll'); return box.scrollWidth > box.clientWidth"
    )
    assert (
        script(
            browser,
            "return Math.max(...all('.plot svg').map((svg) => svg.getBoundingClientRect().right))",
        )
        <= 360
    )
    assert (
        script(browser, "return Math.max(...all('.detail').map((block) => block.offsetWidth))")
        <= 360
    )


def test_reduced_motion_and_focus(show, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browsers.media(browser, prefers_reduced_motion="reduce")
    show(boards.board(4))
    assert script(browser, "return getComputedStyle(one('.chevron')).transitionDuration") == "0s"
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert script(browser, "return document.activeElement.className") == "skip"
    assert (
        script(browser, "return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    )
    assert script(browser, "return document.activeElement.getBoundingClientRect().left") >= 0

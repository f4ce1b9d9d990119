"""Figures of the page: values at points, and files of them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from support import boards
from support.browsers import pick, script

READABLE = ("convergence", "patience", "pareto")


def tip(browser, figure):
    return script(
        browser,
        "const tip = one(`#${arguments[0]} .tip`);return tip.hidden ? null : tip.textContent",
        figure,
    )


@pytest.mark.parametrize("figure", READABLE)
def test_the_arrow_keys_read_every_point(show, figure):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = show(boards.board(4))
    svg = browser.find_element(By.CSS_SELECTOR, f"#{figure} .plot svg")
    assert tip(browser, figure) is None
    svg.send_keys(Keys.HOME)
    read = [tip(browser, figure)]
    for _ in range(400):
        svg.send_keys(Keys.ARROW_RIGHT)
        if tip(browser, figure) == read[-1]:
            break
        read.append(tip(browser, figure))
    board = boards.board(4)
    assert {text.split(" at ")[0].split(":")[0] for text in read} == {
        entry["optimizer"] for entry in board["entries"]
    }
    if figure == "patience":
        entry = board["entries"][1]
        rung = entry["rungs"][0]
        loss, std = rung["mean"]["probe_loss"], rung["std"]["probe_loss"]
        start = f"{entry['optimizer']} at {rung['horizon']:,} steps: {loss:.4f} ± {std:.4f}"
        assert any(text.startswith(start) for text in read)
    svg.send_keys(Keys.ESCAPE)
    assert tip(browser, figure) is None


def test_the_pointer_reads_the_nearest_point_and_nothing_far_from_all(show):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    browser = show(boards.board(4))
    mark = browser.find_element(By.CSS_SELECTOR, "#patience .series .mark")
    ActionChains(browser).move_to_element(mark).perform()
    assert "steps:" in tip(browser, "patience")
    heading = browser.find_element(By.CSS_SELECTOR, "#patience h3")
    ActionChains(browser).move_to_element(heading).perform()
    assert tip(browser, "patience") is None


def test_a_saved_figure_is_an_svg_that_stands_alone(show):
    browser = show(boards.board(4))
    script(
        browser,
        "const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => {"
        "  blob.text().then((text) => { window.saved = text; }); return make.call(URL, blob); };",
    )
    pick(browser, "#patience .save")
    text = browser.execute_async_script(
        "const done = arguments[0];"
        "const wait = () => (window.saved ? done(window.saved) : setTimeout(wait, 20)); wait();"
    )
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    nodes = list(root.iter())
    assert not [node for node in nodes if "class" in node.attrib]
    lines = [node for node in nodes if node.get("stroke", "none") not in ("none", "")]
    assert len({node.get("stroke") for node in lines}) > 4  # each entry's colour, and the axes'
    words = {node.text for node in nodes}
    assert {entry["optimizer"] for entry in boards.board(4)["entries"]} <= words
    assert "final probe loss" in words


def test_a_row_opens_to_the_rule_and_its_source_as_text(show):
    board = boards.mutated(
        lambda board: board["entries"][1].update(
            summary="Momentum <b>", source={"file": "calm.py", "text": "x = '</script>'\n\tif x: 1"}
        )
    )
    browser = show(board)
    pick(browser, "tr.entry[data-entry='1'] .expand")
    rule = script(browser, "return one('.detail .wide').textContent")
    assert "Momentum <b>" in rule
    assert "Source: calm.py" in rule
    assert "x = '</script>'" in script(browser, "return one('.source').textContent")
    assert script(browser, "return all('.detail b').length") == 0

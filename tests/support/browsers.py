"""A headless Chromium for the tests of the page."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

MISSING = "No browser: apt-get install chromium chromium-driver"


def installed() -> bool:
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


def open_browser(width: int = 1280, height: int = 900) -> Chrome:
    """A browser whose console can be read; to be ended by quit()."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--window-size={width},{height}",
    ):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))


def media(browser: Chrome, **features: str) -> None:
    """Emulates media features, such as prefers_color_scheme="dark"."""
    named: list[dict[str, Any]] = [
        {"name": name.replace("_", "-"), "value": value} for name, value in features.items()
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})


def resize(browser: Chrome, width: int, height: int = 900) -> None:
    """Sets the viewport's size in CSS pixels, however small."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def script(browser: Chrome, code: str, *arguments: Any) -> Any:
    """Runs JavaScript in which `one` and `all` find elements by CSS path."""
    short = "const all = (path) => [...document.querySelectorAll(path)]; const one = (path) => document.querySelector(path);"
    return browser.execute_script(short + code, *arguments)


def column(browser: Chrome, key: str) -> list[str]:
    """The texts of a column of the table."""
    return script(
        browser,
        "return all(`tbody tr.entry .col-${arguments[0]}`).map((cell) => cell.textContent)",
        key,
    )


def names(browser: Chrome) -> list[str]:
    """The optimizers in the table, in its order."""
    return script(browser, "return all('tr.entry .expand').map((button) => button.textContent)")


def pick(browser: Chrome, path: str) -> None:
    script(browser, "one(arguments[0]).click()", path)


def leading(cells: list[str]) -> list[float | None]:
    """The number that each cell starts with; what has none comes last in either direction."""
    found = [re.search(r"-?\d+(\.\d+)?(e-?\d+)?", cell) for cell in cells]
    return [float(match[0]) if match else None for match in found]

"""A headless Chromium for tests of the page."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

MISSING = "No browser found: apt-get install chromium chromium-driver"


def installed() -> bool:
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


def open_browser(width: int = 1280, height: int = 900) -> Chrome:
    """Opens a browser with a readable console; the caller must call quit()."""
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
    """Sets the size of the viewport in CSS pixels; any size works."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def script(browser: Chrome, code: str, *arguments: Any) -> Any:
    """Runs JavaScript in which `one` and `all` find elements by CSS selector."""
    finders = (
        "const all = (path) => [...document.querySelectorAll(path)];"
        "const one = (path) => document.querySelector(path);"
    )
    return browser.execute_script(finders + code, *arguments)


def column(browser: Chrome, key: str) -> list[str]:
    """The cells of one column of the table, as text."""
    return script(
        browser,
        "return all(`tbody tr.entry .col-${arguments[0]}`).map((cell) => cell.textContent)",
        key,
    )


def names(browser: Chrome) -> list[str]:
    """The optimizers in the table, in the order shown."""
    return script(browser, "return all('tr.entry .expand').map((button) => button.textContent)")


def pick(browser: Chrome, path: str) -> None:
    script(browser, "one(arguments[0]).click()", path)


def leading(cells: list[str]) -> list[float | None]:
    """The number at the start of each cell; None for a cell without one."""
    found = [re.search(r"-?\d+(\.\d+)?(e-?\d+)?", cell) for cell in cells]
    return [float(match[0]) if match else None for match in found]

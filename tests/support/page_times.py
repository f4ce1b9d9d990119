"""Prints the size and the speed of pages with the given numbers of entries. Asserts nothing.

python tests/support/page_times.py [ENTRIES ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (1, 2)]

from support import boards, browsers
from sweeps.board.page import render

_PAINT = """
const done = arguments[0];
const report = (list) => done(list.getEntriesByName("first-contentful-paint")[0].startTime);
new PerformanceObserver(report).observe({ type: "paint", buffered: true });
"""
_LOADED = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
_SORTS = """
const heads = [...document.querySelectorAll("#table thead th")];
return heads.map((cell) => cell.dataset.key).map((key) => {
  const start = performance.now();
  document.querySelector(`th[data-key=${key}] button`).click();
  document.body.offsetHeight; // until it is laid out
  return performance.now() - start;
});
"""


def main(counts: list[int]) -> None:
    browser = browsers.open_browser()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for count in counts:
                path = Path(folder) / f"{count}.html"
                path.write_text(render(boards.board(count)), encoding="utf-8")
                browser.get(path.as_uri())
                paint, loaded = (
                    browser.execute_async_script(_PAINT),
                    browser.execute_script(_LOADED),
                )
                print(
                    f"{count} entries: {path.stat().st_size / 1024:.0f} KiB; "
                    f"first paint {paint:.0f} ms, everything drawn {loaded:.0f} ms"
                )
                for rows in ("first rows", "all rows"):
                    sorts = sorted(browser.execute_script(_SORTS))
                    print(
                        f"  sorting by each of {len(sorts)} columns, {rows}: "
                        f"median {sorts[len(sorts) // 2]:.0f} ms, longest {sorts[-1]:.0f} ms"
                    )
                    browser.execute_script("document.getElementById('rest').click()")
    finally:
        browser.quit()


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [12, 500])

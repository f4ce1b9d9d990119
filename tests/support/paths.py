"""Where things are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CALM, BRISK = (ROOT / "tests" / "support" / "plug_ins" / f"{name}.py" for name in ("calm", "brisk"))

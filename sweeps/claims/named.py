"""The optimizers that claims are about, from optimizers.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMED: dict[str, Any] = json.loads(Path(__file__).with_name("optimizers.json").read_text())

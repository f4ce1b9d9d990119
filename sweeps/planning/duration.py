"""Durations in units that a person reads."""

from __future__ import annotations

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


def duration(seconds: float) -> str:
    """Such as "45 s", "2 min 40 s", "3 h 20 min", "2 days 5 h", "41 days" or "12 years": rounded to
    the smaller unit; from ten days on to whole days, and from three years on to whole years."""
    for unit, limit, large, small in (
        (1, MINUTE, "", "s"),
        (1, HOUR, "min", "s"),
        (MINUTE, DAY, "h", "min"),
        (HOUR, 10 * DAY, "day", "h"),
    ):
        whole = round(seconds / unit)
        if whole * unit < limit:
            ratio = 24 if large == "day" else 60
            return _join((whole // ratio, large), (whole % ratio, small))
    days = round(seconds / DAY)
    return _join((days, "day")) if days * DAY < 3 * YEAR else _join((round(seconds / YEAR), "year"))


def _join(*parts: tuple[int, str]) -> str:
    texts = [
        f"{count:,} {unit}{'s' * (unit in ('day', 'year') and count > 1)}"
        for count, unit in parts
        if count
    ]
    return " ".join(texts) or "0 s"

"""Words of problems: names shown safely, and the known name that somebody probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LONGEST_SHOWN: Final = 64


def shown(text: str) -> str:
    """Text of a user as it may stand in a message or a log line: one line, printable, at most 64 characters."""
    short = text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
    return short if short.isprintable() else ascii(short)[1:-1]


def hint(name: str, known: Iterable[str]) -> str:
    """`; did you mean `burst`?` where a known name is near, else empty."""
    import difflib  # noqa: PLC0415 - only where something is wrong

    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower()[:_LONGEST_SHOWN], by_lower, n=1, cutoff=0.6)
    return f"; did you mean `{by_lower[near[0]]}`?" if near else ""


def listed(names: Iterable[str]) -> str:
    """Names with commas between them."""
    return ", ".join(names)


def count_text(count: int, noun: str) -> str:
    """`1 rule`, `2 rules`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

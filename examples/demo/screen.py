"""Where the demo shows what happens: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

_ROWS: Final = 18
"""Requests that a live table shows; older ones scroll out."""


class Shown(msgspec.Struct, frozen=True):
    """One request and what Envoy answered.

    Attributes:
        request: Method, path and telling headers.
        status: HTTP status.
        headers: `x-ratelimit-*` without the prefix.
    """

    request: str
    status: int
    headers: Mapping[str, str]

    @property
    def let_through(self) -> bool:
        """Whether the upstream saw it."""
        return self.status == 200


class Screen(Protocol):
    """Takes what happens, as it happens."""

    def title(self, text: str) -> None:
        """A new scene begins."""

    def request(self, shown: Shown) -> None:
        """One request has been answered."""


class _Lines:
    """Plain lines."""

    def title(self, text: str) -> None:
        print(f"\n{text}", flush=True)

    def request(self, shown: Shown) -> None:
        verdict = "let through" if shown.let_through else "limited    "
        headers = "  ".join(f"x-ratelimit-{name}: {value}" for name, value in shown.headers.items())
        print(f"  {verdict} {shown.status}  {shown.request:<44} {headers}".rstrip(), flush=True)


class _Live:
    """A table that is drawn anew with every request."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._rows: list[tuple[str, Shown | None]] = []
        self._passed = self._limited = 0

    def title(self, text: str) -> None:
        self._rows.append((text, None))
        self._live.update(self._drawn())

    def request(self, shown: Shown) -> None:
        self._passed += shown.let_through
        self._limited += not shown.let_through
        self._rows.append((shown.request, shown))
        self._live.update(self._drawn())

    def _drawn(self) -> Group:
        table = Table(expand=True)
        table.add_column("request", no_wrap=True, ratio=1)
        table.add_column("answer", no_wrap=True, min_width=15)
        table.add_column("limit", no_wrap=True, max_width=36)
        table.add_column("remaining", justify="right", min_width=9)
        table.add_column("reset", justify="right", min_width=5)
        for text, shown in self._rows[-_ROWS:]:
            if shown is None:
                table.add_row(Text(text, style="bold cyan"))
            else:
                answer = (
                    Text("200 let through", "green") if shown.let_through else Text(f"{shown.status} limited", "red")
                )
                cells = (shown.headers.get(name, "") for name in ("limit", "remaining", "reset"))
                table.add_row(Text(f"  {text}"), answer, *cells)
        return Group(table, Text(f"let through {self._passed}, limited {self._limited}"))


@contextmanager
def screen() -> Iterator[Screen]:
    """The screen that fits the place where the output goes."""
    console = Console()
    if not console.is_terminal:
        yield _Lines()
        return
    with Live(console=console, refresh_per_second=20) as live:
        yield _Live(live)

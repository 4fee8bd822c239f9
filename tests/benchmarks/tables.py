"""Rows as a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

_WIDTH = 190


def show(title: str, rows: Sequence[msgspec.Struct], columns: Sequence[str] = ()) -> None:
    """Print the fields `columns` of each row, all of them unless told; what a row does not know is a dash."""
    if not rows:
        return
    names = columns or rows[0].__struct_fields__
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in names:
        is_text = isinstance(getattr(rows[0], name), str)
        table.add_column(name.replace("_", " "), justify="left" if is_text else "right", no_wrap=is_text)
    for row in rows:
        table.add_row(*(_text(getattr(row, name)) for name in names))
    Console(width=_WIDTH).print(table)


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, int | float):
        return f"{value:,}"
    return " → ".join(map(str, value)) if isinstance(value, tuple) else str(value)

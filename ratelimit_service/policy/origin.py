"""Where a decoded object is written, down to the line of each field."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Origin(msgspec.Struct, frozen=True):
    """Place of one document.

    Attributes:
        file: Path as it was given; empty: it comes from no file.
        line: First line of the document, from 1; 0: unknown.
        lines: Line of each path that does not start on its parent's line.
    """

    file: str = ""
    line: int = 0
    lines: Mapping[str, int] = {}

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def line_of(self, path: str) -> int:
        """Line of a field such as `spec.rules[0].limits[0].burst`, else of its nearest written parent."""
        while path:
            line = self.lines.get(path)
            if line is not None:
                return line
            path = parent(path)
        return self.line


def parent(path: str) -> str:
    """The path that holds this one: `a.b[0]` → `a.b` → `a` → empty; always shorter, whatever keys look like."""
    if path.endswith("]") and "[" in path:
        return path[: path.rindex("[")]
    return path.rpartition(".")[0]

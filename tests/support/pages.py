"""Read the code blocks of a Markdown page and know what to do with each.

The words after the language say how a block is run:

- `yaml file=NAME`  write it as NAME in the page's folder; policies must also validate
- `yaml envoy file=NAME`  the same, and a real Envoy must accept it (`--mode validate`)
- `sh`  run it in the page's folder; a `text` block right after it is the output, `…` stands for anything
- `sh background`  start it and go on when the words of the following `text` block's last line have been printed
- `sh ci`  run by `.ci/run` itself; every line of it must stand there
- `python file=NAME`  write it, run it; a `text` block after it is its output
- `mermaid`, `text`, `proto`, `promql`  not programs
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

FENCE = re.compile(r"^```(\S*)[ ]?(.*?)\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


class Block(msgspec.Struct, frozen=True):
    """One fenced block.

    Attributes:
        page: File it stands in.
        line: Line of its fence, from 1.
        language: First word of the fence.
        words: The other words; `file=NAME` gives `name`.
        body: Its text.
    """

    page: Path
    line: int
    language: str
    words: frozenset[str]
    name: str
    body: str


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        words = found.group(2).split()
        name = next((word.removeprefix("file=") for word in words if word.startswith("file=")), "")
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found.group(1), frozenset(words), name, found.group(3))


def expected_pattern(text: str) -> re.Pattern[str]:
    """What output a `text` block stands for: `…` is anything, runs of spaces and box lines are one space."""
    return re.compile(".*?".join(re.escape(part) for part in tidy(text).split("…")), re.DOTALL)


def tidy(text: str) -> str:
    """Output without what depends on the terminal: trailing spaces, runs of blanks, width of rules."""
    lines = (re.sub(r"[ ─━═]+", " ", line).strip() for line in text.strip().splitlines())
    return "\n".join(line for line in lines if line)

"""Descriptors as arguments of a command line: `key=value…`, several of them parted by `--descriptor`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import click

Entries = tuple[tuple[bytes, bytes], ...]

_SEPARATOR: Final = "\0"
"""Stands for a separator between descriptors; no argument of a process can hold it."""

_SEPARATING: Final = frozenset({"--", "--descriptor"})


class DescriptorCommand(click.Command):
    """A command whose entries may be parted into several descriptors by `--descriptor` (or `--`)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Hide the separators from click, which would take them for options."""
        return super().parse_args(ctx, [_SEPARATOR if arg in _SEPARATING else arg for arg in args])


def parse_descriptors(arguments: Sequence[str]) -> tuple[Entries, ...]:
    """Read `user=ann path=/ --descriptor plan=gold` as two descriptors.

    Values may hold `=` and bytes that are no UTF-8; a value may be empty. No argument at all is one descriptor
    without entries, and so is nothing between two separators: Envoy can send that too.

    Raises:
        click.BadParameter: An argument has no `=`, or an empty key.
    """
    descriptors: list[list[tuple[bytes, bytes]]] = [[]]
    for argument in arguments:
        if argument == _SEPARATOR:
            descriptors.append([])
            continue
        key, equals, value = os.fsencode(argument).partition(b"=")
        if not equals or not key:
            raise click.BadParameter(f"{argument!r} is no entry; write key=value")
        descriptors[-1].append((key, value))
    return tuple(tuple(entries) for entries in descriptors)


def entries_text(entries: Entries) -> str:
    """`user=ann path=/`; bytes that are no UTF-8 are shown as escapes."""
    return " ".join(f"{_shown(key)}={_shown(value)}" for key, value in entries) or "(no entries)"


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")

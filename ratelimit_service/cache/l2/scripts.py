"""The scripts that run in Redis, by name. Their texts are in `lua/`, each with what it takes and gives."""

from __future__ import annotations

import enum
import hashlib
from importlib import resources
from typing import Final

import msgspec

__all__ = ["SCRIPTS", "Script", "ScriptName"]


class ScriptName(enum.Enum):
    """Which script; the value is its file."""

    STORE = "store"
    DROP = "drop"
    LEASE = "lease"
    FILL = "fill"
    RELEASE = "release"
    TAG = "tag"
    PREFIXES = "prefixes"


class Script(msgspec.Struct, frozen=True):
    """A script's text and the name under which Redis keeps it."""

    text: bytes
    sha1: bytes


def _read(name: ScriptName) -> Script:
    text = (resources.files(__package__) / "lua" / f"{name.value}.lua").read_bytes()
    # Redis' own name for a script, no protection.
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


SCRIPTS: Final = {name: _read(name) for name in ScriptName}

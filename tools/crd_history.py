"""The definitions as they were: `crds/history/<plural>-<number>-<digest>.yaml`, one for each change of what they check.

Descriptions are left out, so that a better sentence makes no new entry. The number and the digest of the content are in
the name: an entry that was edited, or one that is missing, is found without looking at what git remembers.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent
HISTORY: Final = ROOT / "crds" / "history"
PLURALS: Final = ("ratelimitpolicies", "cacheprofiles")
"""Definitions that are kept."""

_NAME: Final = re.compile(r"(?P<plural>[a-z]+)-(?P<number>\d{3})-(?P<digest>[0-9a-f]{8})\.yaml")
_HEAD: Final = "# Kept by `make generate`; never edited, never removed.\n"


def entries(plural: str, folder: Path = HISTORY) -> list[Path]:
    """The kept definitions of a kind, oldest first."""
    return sorted(folder.glob(f"{plural}-*.yaml"))


def entry_of(definition: str) -> str:
    """What is kept of a definition: everything that the API server checks or shows, without descriptions."""
    kept = _without_descriptions(yaml.safe_load(definition))
    return _HEAD + str(yaml.safe_dump(kept, sort_keys=False, width=120, allow_unicode=True))


def keep(crds: Path = ROOT / "crds", folder: Path = HISTORY) -> None:
    """Add the present definitions, unless the newest entries are theirs."""
    folder.mkdir(exist_ok=True)
    for plural in PLURALS:
        present = entry_of((crds / f"{plural}.yaml").read_text(encoding="utf-8"))
        kept = entries(plural, folder)
        if not kept or kept[-1].read_text(encoding="utf-8") != present:
            name = f"{plural}-{len(kept) + 1:03d}-{_digest(present)}.yaml"
            (folder / name).write_text(present, encoding="utf-8")


def problems(crds: Path = ROOT / "crds", folder: Path = HISTORY) -> list[str]:
    """What is wrong with the history, one line each."""
    found = []
    for plural in PLURALS:
        kept = entries(plural, folder)
        for number, path in enumerate(kept, 1):
            named = _NAME.fullmatch(path.name)
            if named is None or int(named["number"]) != number:
                found.append(f"{path.name} is not entry {number:03d} of {plural}: none is ever removed or renamed")
            elif named["digest"] != _digest(path.read_text(encoding="utf-8")):
                found.append(f"{path.name} was edited: entries stay as they were")
        present = entry_of((crds / f"{plural}.yaml").read_text(encoding="utf-8"))
        if not kept or kept[-1].read_text(encoding="utf-8") != present:
            found.append(f"crds/history has no entry for the present {plural}: run `make generate`")
    return found


def _without_descriptions(part: Any) -> Any:
    if isinstance(part, dict):
        # A field that is called so has a schema, not a text.
        return {
            key: _without_descriptions(value)
            for key, value in part.items()
            if key != "description" or not isinstance(value, str)
        }
    return [_without_descriptions(each) for each in part] if isinstance(part, list) else part


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]

"""The licence of everything that an image holds, out of what the distributions say of themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = ("service", "operator")
"""Images, and the locks that they are installed from."""

PERMITTED: Final = frozenset({"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "PSF-2.0"})
"""SPDX names of licences that may be in an image: each lets it be passed on unchanged under Apache-2.0 of our own."""

_SAID_OTHERWISE: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "License :: OSI Approved :: MIT License": "MIT",
}
"""What older metadata says, as SPDX."""
_NOT_INSTALLED: Final = {"async-timeout": "Apache-2.0"}
"""Of distributions that the newest interpreter does not need."""
_PINNED: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", re.MULTILINE)


class Part(NamedTuple):
    """A distribution in an image.

    Attributes:
        licence: SPDX expression.
        images: Which hold it.
    """

    name: str
    version: str
    licence: str
    images: Sequence[str]


def pinned(lock: str) -> dict[str, str]:
    """Versions by name in `requirements/<lock>.txt`."""
    return dict(_PINNED.findall((ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")))


def licence_of(name: str) -> str:
    """SPDX expression of a distribution; what is not known to be one is given as it is said."""
    if name in _NOT_INSTALLED:
        return _NOT_INSTALLED[name]
    said = metadata.metadata(name).json
    classifiers = [each for each in said.get("classifier", ()) if each.startswith("License ::")]
    first = str(said.get("license_expression") or said.get("license") or " ".join(classifiers))
    return _SAID_OTHERWISE.get(first, first)


def parts() -> list[Part]:
    """Everything in any image, by name."""
    held = {image: pinned(image) for image in LOCKS}
    versions = {name: version for lock in held.values() for name, version in lock.items()}
    return [
        Part(name, versions[name], licence_of(name), [image for image in LOCKS if name in held[image]])
        for name in sorted(versions)
    ]


def refused(expression: str) -> set[str]:
    """The names in an SPDX expression that are not permitted; of an OR one permitted side is enough."""
    sides = [set(re.split(r" AND ", side)) - PERMITTED for side in expression.strip("()").split(" OR ")]
    return min(sides, key=len)


def render_licences() -> str:
    """The reference page."""
    lines = [
        "# Licences",
        "",
        (
            "What the images hold beside Tidegate itself (Apache-2.0) and the interpreter, by the locks that they are "
            "installed from."
        ),
        "The same lists with hashes, as CycloneDX: `make sbom`, or the image target `sbom`.",
        "",
        "| distribution | version | licence | in |",
        "|---|---|---|---|",
        *(f"| {it.name} | {it.version} | {it.licence} | {', '.join(it.images)} |" for it in parts()),
    ]
    return "\n".join(lines) + "\n"

"""What keeps a service small that runs for months."""

from __future__ import annotations

import importlib
import sys
from typing import Final

_ORNAMENTS: Final = ("rich", "colorama")
"""What structlog imports where it is installed, to draw tracebacks for people."""


def import_structlog() -> None:
    """Import structlog without the libraries that it only draws with: 5 MB that a service would never use.

    They can be imported as always afterwards. What is imported already stays.
    """
    hidden = [name for name in _ORNAMENTS if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment] # how Python is told that a module is not there
    try:
        importlib.import_module("structlog")
    finally:
        for name in hidden:
            del sys.modules[name]

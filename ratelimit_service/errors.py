"""The root of every error that this package raises on purpose.

Catching `TidegateError` catches all of them; anything else that escapes is a bug.
"""

from __future__ import annotations


class TidegateError(Exception):
    """Base of all errors raised on purpose by Tidegate."""

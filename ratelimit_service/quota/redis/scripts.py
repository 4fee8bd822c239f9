"""The scripts that run inside Redis; their sources are the `.lua` files beside this package's modules."""

from __future__ import annotations

import hashlib
import importlib.resources
from typing import Final

from ratelimit_service.quota.redis.calls import Script

__all__ = ["ORDERS"]

_FIRST: Final = ("shared", "take_fixed", "take_sliding", "take_bucket")
_MADE_WHEN_NEEDED: Final = ("steps", "fixed", "sliding", "bucket", "any")
_LAST: Final = ("orders",)


def _text(*names: str) -> bytes:
    """Files in order: each sees the locals of those before it."""
    folder = importlib.resources.files("ratelimit_service.quota.redis").joinpath("lua")
    return b"\n".join(folder.joinpath(f"{name}.lua").read_bytes() for name in names)


def _orders() -> Script:
    inner = b"local function make_any()\n" + _text(*_MADE_WHEN_NEEDED) + b"end\n"
    source = b"\n".join([_text(*_FIRST), inner, _text(*_LAST)])
    return Script("orders", hashlib.sha1(source, usedforsecurity=False).hexdigest(), source)


ORDERS: Final = _orders()
"""Carries out a list of orders, one for each key (`packing`)."""

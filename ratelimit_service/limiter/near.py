"""Hits near a limit, counted as envoyproxy/ratelimit counts them: those above a share of the limit.

Source: src/limiter/base_limiter.go of that project.
"""

from __future__ import annotations

import struct

from ratelimit_service.algorithms.limit import Limit


def near_threshold(limit: Limit, ratio: float) -> int:
    """Hits above this are near the limit: the floor of limit x ratio, in 32-bit floats as the original computes it."""
    return int(_single(_single(limit.burst) * _single(ratio)))


def _single(number: float) -> float:
    """The nearest 32-bit float."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded


def near_hits(threshold: int, before: int, hits: int) -> int:
    """How many of `hits`, all within the limit, are above `threshold`."""
    return max(0, min(hits, before + hits - threshold))


def near_hits_over(threshold: int, limit: int, before: int) -> int:
    """Hits between `threshold` and the limit, of a request that was counted across the limit."""
    return max(0, limit - max(threshold, before))

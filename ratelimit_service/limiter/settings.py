"""How the limiter answers, beyond what policies say."""

from __future__ import annotations

import msgspec

DEFAULT_MEMO_BYTES = 12 * 2**20


class LimiterSettings(msgspec.Struct, frozen=True):
    """Process-wide switches.

    Attributes:
        compat: Count, answer and fail like envoyproxy/ratelimit; the stores must be its twin too.
        shadow_mode: Reject nothing; statuses still say what is over.
        quota_mode: Every rule is in quota mode, and a descriptor without a rule is a quota that passed.
        response_headers: Send `RateLimit-Limit`, `-Remaining` and `-Reset` whatever the policy says.
        response_dynamic_metadata: Send `dynamic_metadata`.
        near_limit_ratio: Share of a limit above which hits count as near it, 0 to 1.
        store_errors: A call that its store could not decide fails with UNKNOWN, as the original does over Redis.
        memo_bytes: Memory of remembered plans.
    """

    compat: bool = False
    shadow_mode: bool = False
    quota_mode: bool = False
    response_headers: bool = False
    response_dynamic_metadata: bool = False
    near_limit_ratio: float = 0.8
    store_errors: bool = False
    memo_bytes: int = DEFAULT_MEMO_BYTES

"""Values that are much alike, as sessions are: what a trained dictionary is for."""

from __future__ import annotations

import random


def session(draw: random.Random) -> dict[str, object]:
    """One of some 350 B as JSON."""
    return {
        "id": draw.getrandbits(64),
        "user": {"name": f"user-{draw.randrange(10_000)}", "roles": ["reader", "writer"], "locale": "en-GB"},
        "scopes": ["orders:read", "orders:write", "profile:read"],
        "issuer": "https://login.example.org/realms/main",
        "audience": ["api.example.org", "shop.example.org"],
        "expires_at": 1_700_000_000 + draw.randrange(10_000),
        "address": f"10.0.{draw.randrange(255)}.{draw.randrange(255)}",
    }


def sessions(count: int, seed: int = 1) -> dict[str, dict[str, object]]:
    """So many, by key."""
    draw = random.Random(seed)
    return {f"s{number}": session(draw) for number in range(count)}

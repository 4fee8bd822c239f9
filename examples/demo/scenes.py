"""What the demo sends through Envoy, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from examples.demo.upstream import COST_HEADER


class Scene(msgspec.Struct, frozen=True):
    """Some equal requests.

    Attributes:
        title: What is being limited, and by which file.
        path: Where the requests go.
        headers: What they carry.
        count: How many.
        pause_s: Time between two of them.
        expected: Statuses that prove the point.
    """

    title: str
    path: str
    headers: Mapping[str, str]
    count: int
    expected: tuple[int, ...]
    pause_s: float = 0.12


def _allowed_then_denied(allowed: int, denied: int) -> tuple[int, ...]:
    return (200,) * allowed + (429,) * denied


SCENES: Final = (
    Scene(
        "5 requests in any 10 s per user (api.yaml)",
        "/cart",
        {"x-user": "ann"},
        count=7,
        expected=_allowed_then_denied(5, 2),
    ),
    Scene("another user has a budget of his own", "/cart", {"x-user": "bob"}, count=2, expected=(200, 200)),
    Scene("health checks are exempt", "/healthz", {}, count=2, expected=(200, 200)),
    Scene("/internal/ is closed", "/internal/stats", {}, count=1, expected=(429,)),
    Scene(
        "5 attempts a minute per account (login.yaml)",
        "/login",
        {"x-account": "root"},
        count=7,
        expected=_allowed_then_denied(5, 2),
    ),
    Scene(
        "free plan: 10 a minute per key (plans.yaml)",
        "/search",
        {"x-plan": "free", "x-api-key": "k-1"},
        count=12,
        expected=_allowed_then_denied(10, 2),
        pause_s=0.06,
    ),
    Scene(
        "paid plan: bursts of 300",
        "/search",
        {"x-plan": "paid", "x-api-key": "k-2"},
        count=4,
        expected=(200,) * 4,
        pause_s=0.06,
    ),
    Scene(
        "1,000 tokens a minute, charged by the answer (tokens.yaml)",
        "/assistant",
        {"x-user": "ann", COST_HEADER: "400"},
        count=5,
        expected=_allowed_then_denied(3, 2),
        pause_s=0.25,
    ),
)
"""In the order in which they are played; about six seconds in all."""

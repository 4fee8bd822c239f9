"""The middleware that limits requests, called as a server calls it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ratelimit_service.adapter import RateLimitingCacheAdapter
from ratelimit_service.integrations.asgi_limits import RateLimitMiddleware, client_address


async def hello(request: Any) -> PlainTextResponse:
    return PlainTextResponse("hello")


def client(limit: int, **options: Any) -> httpx.AsyncClient:
    limiter = RateLimitingCacheAdapter.in_memory()
    app = Starlette(routes=[Route("/", hello)])
    wrapped = RateLimitMiddleware(app, limiter, limit=limit, window_ms=3_600_000, **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(wrapped, client=("10.0.0.1", 1)), base_url="http://x")


def test_requests_beyond_the_limit_are_answered_429_and_told_when_to_come_back() -> None:
    """What passes says what is left."""

    async def main() -> list[tuple[int, str, str]]:
        seen = []
        async with client(2) as asking:
            for _ in range(3):
                answer = await asking.get("/")
                seen.append((answer.status_code, answer.headers["ratelimit-remaining"], answer.text.strip()))
            assert 1 <= int(answer.headers["retry-after"]) <= 3_661
            assert int(answer.headers["ratelimit-reset"]) > 0
            assert answer.headers["ratelimit-limit"] == "2"
        return seen

    assert asyncio.run(main()) == [(200, "1", "hello"), (200, "0", "hello"), (429, "0", "too many requests")]


def test_keys_count_apart_and_none_is_not_limited() -> None:
    """By a header here; without it a request passes."""

    def plan(scope: Any) -> str | None:
        return next((value.decode() for name, value in scope["headers"] if name == b"x-plan"), None)

    async def main() -> list[int]:
        async with client(1, key=plan) as asking:
            plans: list[dict[str, str]] = [{"x-plan": "a"}, {"x-plan": "a"}, {"x-plan": "b"}, {}, {}]
            return [(await asking.get("/", headers=headers)).status_code for headers in plans]

    assert asyncio.run(main()) == [200, 429, 200, 200, 200]


def test_a_limit_of_none_has_no_time_to_come_back() -> None:
    """Nothing ever fits, so no time is told."""

    async def main() -> httpx.Response:
        async with client(0) as asking:
            return await asking.get("/")

    answer = asyncio.run(main())

    assert answer.status_code == 429
    assert "retry-after" not in answer.headers
    assert "ratelimit-reset" not in answer.headers


def test_other_traffic_passes_and_the_lifespan_closes_the_limiter() -> None:
    """The address of a Unix socket's client is empty: all of them count together."""

    async def main() -> list[str]:
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])

        wrapped = RateLimitMiddleware(app, RateLimitingCacheAdapter.in_memory(), limit=1, window_ms=1_000)
        for kind in ("websocket", "lifespan"):
            await wrapped({"type": kind}, None, None)  # type: ignore[arg-type]  # neither is used
        return seen

    assert asyncio.run(main()) == ["websocket", "lifespan"]
    assert client_address({"client": None}) == ""
    assert client_address({"client": ("::1", 5)}) == "::1"

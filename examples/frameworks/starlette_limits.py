"""A Starlette application that limits its clients: `python examples/frameworks/starlette_limits.py`."""

from __future__ import annotations

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ratelimit_service.adapter import RateLimitingCacheAdapter
from ratelimit_service.integrations.asgi_limits import RateLimitMiddleware


async def hello(_request: Request) -> PlainTextResponse:
    """A page."""
    return PlainTextResponse("hello")


app = Starlette(
    routes=[Route("/", hello)],
    middleware=[
        # `from_url("redis://…")` in place of `in_memory()` shares the limits between processes.
        Middleware(RateLimitMiddleware, limiter=RateLimitingCacheAdapter.in_memory(), limit=3, window_ms=60_000)
    ],
)


async def main() -> None:
    """Ask as a client would; `uvicorn starlette_limits:app` serves the same."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example") as client:
        for _ in range(4):
            answer = await client.get("/")
            print(answer.status_code, answer.headers["ratelimit-remaining"], "left")


if __name__ == "__main__":
    asyncio.run(main())

"""Middleware that limits the requests of an ASGI application (Starlette, FastAPI, any other).

    from ratelimit_service.adapter import RateLimitingCacheAdapter
    from ratelimit_service.integrations.asgi_limits import RateLimitMiddleware

    limiter = RateLimitingCacheAdapter.in_memory()
    app.add_middleware(RateLimitMiddleware, limiter=limiter, limit=100, window_ms=60_000)

A request over its limit is answered 429 with `Retry-After`. Every response says what is left: `RateLimit-Limit`,
`RateLimit-Remaining`, `RateLimit-Reset`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ratelimit_service.adapter import RateLimitingCacheAdapter
from ratelimit_service.integrations.asgi_exchange import App, Message, Receive, Scope, Send
from ratelimit_service.library.results import NEVER_MS, RateLimitResult

__all__ = ["RateLimitMiddleware", "client_address"]

_TOO_MANY: int = 429


def client_address(scope: Scope) -> str:
    """The address that the connection comes from; empty for a Unix socket.

    Behind a proxy that is the proxy's, for everybody: have the server take it from a header that your proxy sets (as
    uvicorn's `--proxy-headers` does), and from no other, since any client can write headers.
    """
    client = scope.get("client")
    return client[0] if client else ""


class RateLimitMiddleware:
    """See the module.

    Args:
        app: What is limited.
        limiter: Counts; started with the first request or the application's lifespan, and closed with that.
        limit, window_ms, algorithm, burst: As with `RateLimitingCacheAdapter.check_rate_limit`.
        key: Whom a request counts for; None: it is not limited.
    """

    def __init__(
        self,
        app: App,
        limiter: RateLimitingCacheAdapter,
        *,
        limit: int,
        window_ms: int,
        algorithm: str = "sliding_window",
        burst: int | None = None,
        key: Callable[[Scope], str | None] = client_address,
    ) -> None:
        self._app = app
        self._limiter = limiter
        self._limit = limit
        self._window_ms = window_ms
        self._algorithm = algorithm
        self._burst = burst
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request, and pass it on if it fits.

        Raises:
            InvalidRateLimit: The limit is none.
        """
        if scope["type"] == "lifespan":
            async with self._limiter:
                await self._app(scope, receive, send)
            return
        key = self._key(scope) if scope["type"] == "http" else None
        if key is None:
            await self._app(scope, receive, send)
            return
        await self._limiter.start()
        result = await self._limiter.check_rate_limit(
            key, self._limit, self._window_ms, algorithm=self._algorithm, burst=self._burst
        )
        headers = _headers(result, time.time())
        if not result.allowed:
            await _refuse(send, headers)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        await self._app(scope, receive, told)


def _headers(result: RateLimitResult, now_s: float) -> list[tuple[bytes, bytes]]:
    headers = [(b"ratelimit-limit", b"%d" % result.limit), (b"ratelimit-remaining", b"%d" % result.remaining)]
    if result.reset_at_ms != NEVER_MS:
        # Rounded up: a client that comes back then must not come too early.
        headers.append((b"ratelimit-reset", b"%d" % max(0, -(-(result.reset_at_ms - int(now_s * 1000)) // 1000))))
    if not result.allowed and result.retry_after_ms != NEVER_MS:
        headers.append((b"retry-after", b"%d" % max(1, -(-result.retry_after_ms // 1000))))
    return headers


async def _refuse(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    body = b"too many requests\n"
    own = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": _TOO_MANY, "headers": [*own, *headers]})
    await send({"type": "http.response.body", "body": body})

"""Middleware that keeps responses of an ASGI application (Starlette, FastAPI, any other) in a `CacheService`.

    from ratelimit_service.integrations.asgi_responses import ResponseCacheMiddleware, response_cache

    app.add_middleware(ResponseCacheMiddleware, cache=response_cache("api-responses"))

A response is kept as its `Cache-Control` says, by the rules for shared caches (RFC 9111): nothing private, nothing with
a cookie, nothing that answers a login unless it says so. `Vary` is honoured; `ETag` and `Last-Modified` are compared,
and a response without a validator gets one. One call of the application answers all who ask for a missing response at
the same time. While the application fails (it raises, or answers 5xx), what is past its time is served for as long as
the cache keeps it (`stale_on_error_us`), unless it says `must-revalidate`. A successful unsafe request (POST, PUT,
PATCH, DELETE) voids what is kept of its address.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Final

from ratelimit_service.cache.flights import LoadTimedOut
from ratelimit_service.cache.loads import Loaded
from ratelimit_service.cache.profiles import DEFAULT_SECRETS
from ratelimit_service.cache.serialisers import MsgpackCodec
from ratelimit_service.cache.service import CacheService
from ratelimit_service.integrations.asgi_exchange import App, Exchange, Message, Receive, ResponseFailed, Scope, Send
from ratelimit_service.integrations.http_caching import (
    NOT_MODIFIED_HEADERS,
    Headers,
    RequestWish,
    StoredResponse,
    is_not_modified,
    wish_of,
)

__all__ = ["ResponseCacheMiddleware", "response_cache"]

DEFAULT_BODY_BYTES: Final = 1024 * 1024
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_GATEWAY_TIMEOUT: Final = 504
_PASSES_S: Final = 10.0
"""For so long nobody waits for another one's response from an address whose last one could not be kept."""
_MOST_PASSING: Final = 10_000


def response_cache(
    profile: str | Path = "api-responses", *, secrets: Path = DEFAULT_SECRETS
) -> CacheService[StoredResponse]:
    """A cache for responses, by profile as `CacheService.from_profile`; the middleware starts and closes it."""
    return CacheService.from_profile(profile, codec=MsgpackCodec(StoredResponse), secrets=secrets)


class ResponseCacheMiddleware:
    """See the module.

    Args:
        app: What is wrapped.
        cache: Where responses are kept; see `response_cache`. Started with the first request or the application's
            lifespan, closed with that.
        default_ttl_s: How long a response is fresh that says nothing about it; 0: such are not kept.
        most_body_bytes: A larger one is not kept.
    """

    def __init__(
        self,
        app: App,
        cache: CacheService[StoredResponse],
        *,
        default_ttl_s: int = 0,
        most_body_bytes: int = DEFAULT_BODY_BYTES,
    ) -> None:
        self._app = app
        self._cache = cache
        self._default_s = default_ttl_s
        self._most_body_bytes = most_body_bytes
        self._passing: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from the cache, or by the application."""
        if scope["type"] == "lifespan":
            async with self._cache:
                await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] in {"GET", "HEAD"} and not _has_body(scope["headers"]):
            await self._cache.start()
            await self._answer(scope, receive, send)
        else:
            await self._cache.start()
            await self._change(scope, receive, send)

    async def _change(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An unsafe request; what is kept of its address is void once it has succeeded."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400 and scope["method"] not in _SAFE:
                # Before the client hears of its success: what it reads next must not be old.
                await self._cache.invalidate_tag(_address(scope))
            await send(message)

        await self._app(scope, receive, watched)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        wish, headers, address = wish_of(scope["headers"]), scope["headers"], _address(scope)
        if scope["method"] == "HEAD":
            await self._answer_head(scope, receive, send, wish)
            return
        exchange = Exchange(
            self._app, scope, receive, send, default_s=self._default_s, most_body_bytes=self._most_body_bytes,
            may_keep=wish.keep,
        )  # fmt: skip
        if not wish.keep or wish.reload:
            await self._answer_anew(scope, send, exchange, wish)
            return
        kept, key = None, address
        only_reads = wish.only_if_cached or self._passing.get(address, 0.0) > time.monotonic()
        for _ in range(2):
            kept = await (self._cache.get(key) if only_reads else self._kept(key, exchange))
            if exchange.begun or kept is None or kept.suits(headers):
                break
            key = _variant(address, kept, scope)
        is_own = exchange.begun
        if not is_own and kept is not None and _is_good(kept, headers, wish):
            exchange.leave()
            await _send_kept(kept, scope, send, is_hit=True)
        elif is_own and kept is not None and kept.may_serve(time.time()):
            # Either just made, or in place of a failure, which the server hears of when the client has its answer.
            exchange.leave()
            await _send_kept(kept, scope, send, is_hit=False)
            await exchange.finish()
        elif wish.only_if_cached:
            await _refuse(send)
        else:
            # It may not be kept, or what others were given is not for this request, or is too old for it.
            await self._answer_anew(scope, send, exchange, wish)

    async def _kept(self, key: str, exchange: Exchange) -> StoredResponse | None:
        """What is kept under a key, or what the application answers now."""

        async def load() -> Loaded:
            response = await exchange.response()
            return Loaded(response, 0 if response is None else response.fresh_s * 1000)

        try:
            return await self._cache.get_or_load(key, load, tags=(_address_of_key(key),))
        except (LoadTimedOut, ResponseFailed):
            # Nobody waits for it any longer but its own client; of a failure, each has its own.
            return None

    async def _answer_anew(self, scope: Scope, send: Send, exchange: Exchange, wish: RequestWish) -> None:
        """By the application; a response that may be kept replaces the one that is."""
        is_waited_for = exchange.begun
        try:
            response = await exchange.response()
        except ResponseFailed:
            exchange.take()
            await exchange.finish()
            return
        if response is None and wish.keep:
            if len(self._passing) >= _MOST_PASSING:
                self._passing.clear()
            self._passing[_address(scope)] = time.monotonic() + _PASSES_S
        elif response is not None:
            self._passing.pop(_address(scope), None)
            if not is_waited_for:
                await self._replace(scope, response)
            await _send_kept(response, scope, send, is_hit=False)
        await exchange.finish()

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send, wish: RequestWish) -> None:
        """From what is kept for GET, or by the application; its response is not kept."""
        kept = None if wish.reload else await self._cache.get(_address(scope))
        if kept is not None and _is_good(kept, scope["headers"], wish):
            await _send_kept(kept, scope, send, is_hit=True)
        else:
            await self._app(scope, receive, send)

    async def _replace(self, scope: Scope, response: StoredResponse) -> None:
        """Keep a response under the key that a request like this looks under first."""
        address = _address(scope)
        first = await self._cache.get(address)
        key = address if first is None or first.suits(scope["headers"]) else _variant(address, first, scope)
        await self._cache.set(key, response, ttl_ms=response.fresh_s * 1000, tags=(address,))


def _is_good(kept: StoredResponse, headers: Headers, wish: RequestWish) -> bool:
    """Whether what is kept answers a request."""
    now_s = time.time()
    is_young = wish.max_age_s is None or kept.age_at(now_s) <= wish.max_age_s
    return is_young and kept.suits(headers) and kept.may_serve(now_s)


def _address(scope: Scope) -> str:
    """The address that responses are kept by: scheme, host, path, query. Percent escapes stay as they came."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string", b"")
    address = f"{scope.get('scheme', 'http')}://{host}{path.decode('latin-1')}?{query.decode('latin-1')}"
    # What is after it tells variants apart, so nobody may write it.
    return address.replace("#", "%23")


def _variant(address: str, first: StoredResponse, scope: Scope) -> str:
    """The key of the response to requests like this one, where that of the address belongs to others."""
    digest = hashlib.blake2b(digest_size=12)
    for name in first.vary:
        value = next((value for each, value in scope["headers"] if each == name.encode("latin-1")), None)
        digest.update(b"\0-" if value is None else b"\1" + len(value).to_bytes(4, "big") + value)
    return f"{address}#{digest.hexdigest()}"


def _address_of_key(key: str) -> str:
    return key.partition("#")[0]


def _has_body(headers: Headers) -> bool:
    """Whether a request has content; what a GET's means is between client and application."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0") for name, value in headers
    )


async def _send_kept(kept: StoredResponse, scope: Scope, send: Send, *, is_hit: bool) -> None:
    """Send a response that is kept, or 304 where the client has it."""
    headers = [*kept.headers]
    if is_hit:
        headers.append((b"age", b"%d" % kept.age_at(time.time())))
    headers.append((b"cache-status", b"tidegate; hit" if is_hit else b"tidegate; fwd=miss; stored"))
    status, body = kept.status, kept.body
    if status == 200 and is_not_modified(scope["headers"], headers):
        wanted = NOT_MODIFIED_HEADERS | {b"age", b"cache-status"}
        status, body, headers = 304, b"", [each for each in headers if each[0] in wanted]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def _refuse(send: Send) -> None:
    """Nothing is kept, and the client wants nothing else (RFC 9111 §5.2.1.7)."""
    headers = [(b"content-type", b"text/plain"), (b"cache-status", b"tidegate; fwd=miss")]
    await send({"type": "http.response.start", "status": _GATEWAY_TIMEOUT, "headers": headers})
    await send({"type": "http.response.body", "body": b"nothing is kept of this\n"})

"""One call of an ASGI application whose response is kept, or passed on as it comes.

The application runs in a task of its own. Its response is gathered until it is known whole, or until it turns out that
it may not be kept: then what was gathered goes to the client at once, and the rest as it comes, so that a stream stays
a stream. Who waits for the same key is told at that moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from ratelimit_service.errors import TidegateError
from ratelimit_service.integrations.http_caching import (
    Headers,
    StoredResponse,
    directives,
    etag_of,
    fresh_s,
    value_of,
    varying,
)

__all__ = ["App", "Exchange", "Message", "Receive", "ResponseFailed", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


_FAILED: Final = 500


class ResponseFailed(TidegateError):
    """The application answered that it failed (5xx); its response waits until it is known whether it is needed."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the application answered {status}")
        self.status = status


class Exchange:
    """See the module.

    Args:
        app: What answers.
        scope, receive, send: As the server has given them.
        default_s: How long a response is fresh that says nothing about it.
        most_body_bytes: A larger one is not kept.
        may_keep: False: the request forbids it.

    Attributes:
        begun: The application was called.
        passed: The response went, or goes, to the client by itself.
    """

    def __init__(
        self, app: App, scope: Scope, receive: Receive, send: Send, *, default_s: int, most_body_bytes: int,
        may_keep: bool = True,
    ) -> None:  # fmt: skip
        self._app = app
        self._scope = scope
        self._receive_next = receive
        self._send_next = send
        self._default_s = default_s
        self._most_body_bytes = most_body_bytes
        self._may_keep = may_keep
        self._request: Headers = scope["headers"]
        self._start: Message | None = None
        self._fresh_s = 0
        self._body = bytearray()
        self._is_asked = self._has_left = False
        self._passes, self._is_decided = asyncio.Event(), asyncio.Event()
        self._known: asyncio.Future[StoredResponse | None] = asyncio.get_running_loop().create_future()
        # Looked at, so that the loop does not report an error that nobody was left to see.
        self._known.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """See the class."""
        return self._task is not None

    def leave(self) -> None:
        """The client is answered otherwise: what the application may still say here is not for it."""
        self._has_left = True
        self._is_decided.set()

    def take(self) -> None:
        """A response that tells of a failure is what the client gets."""
        self._is_decided.set()

    @property
    def passed(self) -> bool:
        """See the class."""
        return self._passes.is_set()

    async def response(self) -> StoredResponse | None:
        """Call the application; its response, or None once it is known that it may not be kept.

        Raises:
            ResponseFailed: It answered 5xx; `take` or `leave` says what becomes of that.
            Exception: What the application raised before that.
        """
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="tidegate-response")
        return await asyncio.shield(self._known)

    async def finish(self) -> None:
        """Wait until the application has returned: a stream has ended, what it does after its response is done.

        Raises:
            Exception: What the application raised.
        """
        if self._task is None:
            return
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if self.passed:
                # The client has left, and nobody else hears this stream.
                self._task.cancel()
            raise

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        except Exception as error:
            if self._known.done():
                raise
            self._known.set_exception(error)
        except asyncio.CancelledError:
            self._known.cancel()
            raise
        if not self._known.done():
            # It returned without a whole response; what there is of it is the client's.
            await self._pass_on()

    async def _receive(self) -> Message:
        """The request without its body, then what the client does, once it is this client's response alone."""
        if not self._is_asked:
            self._is_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._passes.wait()
        return await self._receive_next()

    async def _send(self, message: Message) -> None:
        if self.passed:
            if not self._has_left:
                await self._send_next(message)
        elif message["type"] == "http.response.start":
            self._start = message
            message["headers"] = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
            if self._may_keep:
                self._fresh_s = fresh_s(message["status"], message["headers"], self._request, default_s=self._default_s)
            if message["status"] >= _FAILED and not self._known.done():
                self._known.set_exception(ResponseFailed(message["status"]))
                await self._is_decided.wait()
            if not self._fresh_s:
                await self._pass_on()
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if len(self._body) > self._most_body_bytes:
                await self._pass_on(more_body=message.get("more_body", False))
            elif not message.get("more_body", False) and not self._known.done():
                self._known.set_result(self._stored())
        # Anything else (early hints, trailers) belongs to a response that is not kept, or is left out.

    async def _pass_on(self, *, more_body: bool = True) -> None:
        self._passes.set()
        if not self._known.done():
            self._known.set_result(None)
        if self._start is not None and not self._has_left:
            await self._send_next(self._start)
            if self._body:
                body, self._body = bytes(self._body), bytearray()
                await self._send_next({"type": "http.response.body", "body": body, "more_body": more_body})

    def _stored(self) -> StoredResponse:
        assert self._start is not None
        headers: list[tuple[bytes, bytes]] = [each for each in self._start["headers"] if each[0] != b"age"]
        body = bytes(self._body)
        if value_of(headers, b"etag") is None and self._start["status"] == 200:
            headers.append((b"etag", etag_of(body)))
        said = directives(headers)
        age = value_of(self._start["headers"], b"age") or ""
        return StoredResponse(
            status=self._start["status"],
            headers=headers,
            body=body,
            stored_s=time.time(),
            age_s=int(age) if age.isascii() and age.isdigit() else 0,
            fresh_s=self._fresh_s,
            vary=varying(headers, self._request),
            must_revalidate=bool(said.keys() & {"must-revalidate", "proxy-revalidate", "s-maxage"}),
        )

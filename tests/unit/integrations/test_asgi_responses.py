"""The middleware over applications of Starlette and of plain ASGI, called as a server calls them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.serialisers import MsgpackCodec
from ratelimit_service.cache.service import CacheService
from ratelimit_service.integrations.asgi_responses import ResponseCacheMiddleware, response_cache
from ratelimit_service.integrations.http_caching import StoredResponse
from support.caches import eventually

Answer = Callable[[Request], Awaitable[Response]]


class Bench:
    """An application of one page that counts its calls, behind the middleware."""

    def __init__(self, answer: Answer, *, settings: CacheSettings | None = None, **options: Any) -> None:
        self.calls = 0

        async def page(request: Request) -> Response:
            self.calls += 1
            return await answer(request)

        methods = ["GET", "HEAD", "POST", "OPTIONS"]
        app = Starlette(routes=[Route("/{path:path}", page, methods=methods)])
        self.cache: CacheService[StoredResponse] = CacheService(
            settings or CacheSettings(), codec=MsgpackCodec(StoredResponse)
        )
        self.app = ResponseCacheMiddleware(app, self.cache, **options)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://shop.example")


def numbered(**headers: str) -> Answer:
    """Answers with the number of the call."""
    calls = 0

    async def answer(request: Request) -> Response:
        nonlocal calls
        calls += 1
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return PlainTextResponse(f"call {calls}", headers=named)

    return answer


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(main)


def test_a_response_is_kept_as_long_as_it_says_and_served_with_its_age() -> None:
    """The second request is answered without the application, with Age and the same validator."""

    async def main() -> None:
        bench = Bench(numbered(cache_control="max-age=60"))
        async with bench.client() as client:
            first, second = await client.get("/a?b=1"), await client.get("/a?b=1")
            other = await client.get("/a?b=2")

        assert (first.text, second.text, other.text) == ("call 1", "call 1", "call 2")
        assert first.headers["cache-status"] == "tidegate; fwd=miss; stored"
        assert second.headers["cache-status"] == "tidegate; hit"
        assert second.headers["age"] == "0"
        assert first.headers["etag"] == second.headers["etag"]

    run(main())


def test_a_client_that_has_the_response_gets_304_without_a_body() -> None:
    """From what is kept, and at the first request too."""

    async def main() -> None:
        bench = Bench(numbered(cache_control="max-age=60", vary="accept"))
        async with bench.client() as client:
            tag = (await client.get("/a")).headers["etag"]
            again = await client.get("/a", headers={"if-none-match": tag})
            head = await client.head("/a", headers={"if-none-match": '"other"'})

        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["vary"] == "accept"
        assert "content-type" not in again.headers
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "6")
        assert bench.calls == 1

    run(main())


def test_one_call_answers_all_who_ask_at_once() -> None:
    """Twenty requests for a missing response are one call of the application."""

    async def main() -> tuple[int, set[str]]:
        async def slow(request: Request) -> Response:
            await asyncio.sleep(0.05)
            return PlainTextResponse("slow", headers={"cache-control": "max-age=9"})

        bench = Bench(slow)
        async with bench.client() as client:
            answers = await asyncio.gather(*(client.get("/a") for _ in range(20)))
        return bench.calls, {answer.text for answer in answers}

    assert run(main()) == (1, {"slow"})


def test_a_private_response_reaches_nobody_else() -> None:
    """Ten at once, each with its own name: each gets its own page, and later ones do not wait for one another."""

    async def main() -> None:
        async def private(request: Request) -> Response:
            await asyncio.sleep(0.01)
            return PlainTextResponse(request.headers["x-user"], headers={"cache-control": "private, max-age=60"})

        bench = Bench(private)
        async with bench.client() as client:
            for _ in range(2):
                users = [f"user-{number}" for number in range(10)]
                answers = await asyncio.gather(*(client.get("/me", headers={"x-user": user}) for user in users))
                assert [answer.text for answer in answers] == users
        assert bench.calls == 20

    run(main())


def test_each_variant_is_kept_by_itself() -> None:
    """Vary names what tells them apart; a header that no variant was asked with is another one."""

    async def main() -> None:
        async def spoken(request: Request) -> Response:
            text = request.headers.get("accept-language", "none")
            return PlainTextResponse(text, headers={"cache-control": "max-age=60", "vary": "Accept-Language"})

        bench = Bench(spoken)
        async with bench.client() as client:
            for _ in range(2):
                for language in ("de", "fr", "en"):
                    answer = await client.get("/a", headers={"accept-language": language})
                    assert answer.text == language
                assert (await client.get("/a")).text == "none"
            # Written by a client, it is part of the address and meets no variant.
            assert (await client.get("/a%23de")).text == "none"
            concurrent = await asyncio.gather(
                *(client.get("/b", headers={"accept-language": each}) for each in ("de", "fr", "de", "it"))
            )
            assert [answer.text for answer in concurrent] == ["de", "fr", "de", "it"]
            assert (await client.get("/a", headers={"accept-language": "fr", "cache-control": "no-cache"})).text == "fr"
        assert bench.calls <= 10

    run(main())


def test_a_request_may_ask_for_a_new_response_for_none_to_be_kept_and_for_a_kept_one_only() -> None:
    """no-cache replaces what is kept; no-store leaves it; only-if-cached is 504 where there is none."""

    async def main() -> list[str | int]:
        bench = Bench(numbered(cache_control="max-age=60"))
        seen: list[str | int] = []
        async with bench.client() as client:
            seen.append((await client.get("/a", headers={"cache-control": "only-if-cached"})).status_code)
            wishes = ("", "no-cache", "", "no-store", "", "only-if-cached", "max-age=60", "max-age=0", "")
            answers = [await client.get("/a", headers={"cache-control": said} if said else {}) for said in wishes]
            seen += [answer.text for answer in answers]
            head = await client.head("/a", headers={"cache-control": "no-cache"})
            seen.append(head.status_code)
        return seen

    assert run(main()) == [504, "call 1", "call 2", "call 2", "call 3", "call 2", "call 2", "call 2", "call 4",
                           "call 4", 200]  # fmt: skip


def test_a_successful_unsafe_request_voids_what_is_kept_of_its_address() -> None:
    """One that fails does not, nor does one of another address, nor OPTIONS."""

    async def main() -> list[str]:
        async def page(request: Request) -> Response:
            if request.method != "GET":
                return Response(status_code=400 if request.url.query else 200)
            return PlainTextResponse(f"call {bench.calls}", headers={"cache-control": "max-age=60"})

        bench = Bench(page)
        seen = []
        async with bench.client() as client:
            seen.append((await client.get("/a")).text)
            await client.request("OPTIONS", "/a")
            await client.post("/b")
            seen.append((await client.get("/a")).text)
            await client.post("/a", content=b"new")
            seen.append((await client.get("/a")).text)
        return seen

    assert run(main()) == ["call 1", "call 1", "call 5"]


def test_a_stream_stays_a_stream() -> None:
    """What may not be kept goes out piece by piece, and what grows too large does so from there on."""

    async def main() -> None:
        async def stream(request: Request) -> Response:
            async def pieces() -> Any:
                for number in range(5):
                    yield b"%d" % number * 10

            said = "no-store" if request.url.query else "max-age=60"
            return StreamingResponse(pieces(), headers={"cache-control": said})

        bench = Bench(stream, most_body_bytes=25)
        async with bench.client() as client:
            for _ in range(2):
                answer = await client.get("/big")
                assert answer.content == b"".join(b"%d" % number * 10 for number in range(5))
                assert "cache-status" not in answer.headers
            assert len((await client.get("/a?never")).content) == 50
        assert bench.calls == 3

    run(main())


def test_what_a_client_hears_of_an_endless_stream_comes_at_once_and_its_leaving_ends_it() -> None:
    """The first piece is there while the application still writes; the task that is cancelled takes it along."""

    async def main() -> tuple[list[bytes], bool]:
        ended = asyncio.Event()
        said: list[bytes] = []

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
            await send({"type": "http.response.start", "status": 200, "headers": [(b"Cache-Control", b"no-store")]})
            try:
                while True:
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
                    await asyncio.sleep(0.001)
            finally:
                ended.set()

        async def send(message: Any) -> None:
            said.append(message.get("body", b""))

        app = ResponseCacheMiddleware(endless, response_cache())
        scope = {"type": "http", "method": "GET", "path": "/events", "headers": []}
        call = asyncio.create_task(app(scope, _never, send))
        await eventually(lambda: len(said) > 2, "pieces come")
        call.cancel()
        await asyncio.wait((call,))
        await asyncio.wait_for(ended.wait(), 30)
        await app._cache.close()
        return said[:2], ended.is_set()

    assert run(main()) == ([b"", b"x"], True)


async def _never() -> Any:
    await asyncio.Event().wait()


def test_an_application_that_fails_fails_as_without_the_middleware() -> None:
    """Before its response, for all who wait; after it, for its own client; without any, as it is."""

    async def main() -> list[str]:
        seen = []

        async def broken(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/late":
                await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"no-store")]})
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
            if scope["path"] == "/half":
                await send(
                    {"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=9")]}
                )
                await send({"type": "http.response.body", "body": b"half", "more_body": True})
                return
            raise ValueError(scope["path"])

        app = ResponseCacheMiddleware(broken, response_cache())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            for path in ("/early", "/late"):
                with pytest.raises(ValueError, match=path) as caught:
                    await client.get(path)
                seen.append(str(caught.value))
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await app({"type": "http", "method": "GET", "path": "/half", "headers": []}, _never, send)
        seen += [str(message.get("body", message.get("status"))) for message in sent]
        await app._cache.close()
        return seen

    assert run(main()) == ["/early", "/late", "200", "b'half'"]


class Failing:
    """A page that may begin to fail, as Starlette has it: it answers 500, then raises."""

    def __init__(self, said: str) -> None:
        self.said = said
        self.fails = False

    async def __call__(self, request: Request) -> Response:
        if self.fails:
            raise ValueError("down")
        return PlainTextResponse("kept", headers={"cache-control": self.said})


@pytest.mark.parametrize(
    ("said", "answer"), [("max-age=1", (200, "kept")), ("max-age=1, must-revalidate", (500, "Internal Server Error"))]
)
def test_stale_responses_stand_in_for_a_failing_application_unless_they_forbid_it(
    said: str, answer: tuple[int, str]
) -> None:
    """`must-revalidate` is kept to; any other response is served past its time while the application fails."""

    async def main() -> tuple[int, str]:
        page = Failing(said)
        bench = Bench(page, settings=CacheSettings(stale_on_error_us=600_000_000))
        transport = httpx.ASGITransport(bench.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            await client.get("/a")
            page.fails = True
            seen: list[httpx.Response] = []

            async def is_called() -> bool:
                # An answer without a call is still the fresh one.
                seen.append(await client.get("/a"))
                return bench.calls > 1

            await eventually(is_called, "it is not fresh any more")
        return seen[-1].status_code, seen[-1].text

    assert run(main()) == answer


def test_what_is_done_after_the_response_is_done_once_and_does_not_delay_it() -> None:
    """Background tasks of Starlette run; their failure is the application's."""

    async def main() -> int:
        done = 0

        async def later() -> None:
            nonlocal done
            done += 1

        async def page(request: Request) -> Response:
            return PlainTextResponse("x", headers={"cache-control": "max-age=9"}, background=BackgroundTask(later))

        bench = Bench(page)
        async with bench.client() as client:
            await client.get("/a")
            await client.get("/a")
        return done

    assert run(main()) == 1


def test_other_traffic_passes_and_the_lifespan_opens_and_closes_the_cache() -> None:
    """WebSockets, and GET requests with content, are the application's alone."""

    async def main() -> list[str]:
        seen: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["type"])
            if scope["type"] == "http":
                seen.append((await receive())["body"].decode())
            if scope["type"] == "lifespan":
                seen.append(str(cache.health().status.value))

        cache = response_cache()
        wrapped = ResponseCacheMiddleware(app, cache)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"content"}

        await wrapped({"type": "websocket"}, receive, _ignore)
        await wrapped({"type": "lifespan"}, receive, _ignore)
        headers = [(b"content-length", b"7")]
        await wrapped({"type": "http", "method": "GET", "path": "/", "headers": headers}, receive, _ignore)
        await cache.close()
        return seen

    assert run(main()) == ["websocket", "lifespan", "healthy", "http", "content"]


async def _ignore(message: Any) -> None:
    pass

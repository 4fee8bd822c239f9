"""The admin server over real sockets: connections, limits, and what a bad client gets."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from ratelimit_service.addresses import Address
from ratelimit_service.telemetry.metrics import Metrics
from ratelimit_service.transport.addresses import CannotListen
from ratelimit_service.transport.admin import AdminLimits, AdminServer
from ratelimit_service.transport.admin_pages import ROUTES
from ratelimit_service.transport.admin_routes import Page, Query, Route
from ratelimit_service.transport.admin_service import AdminView
from support.admin_views import ShownService, ask, connected, raw, serving

REQUEST = b'{"domain":"shop","descriptors":[{"entries":[{"key":"user","value":"bob"}]}]}'
QUICK = AdminLimits(idle_s=0.2, header_s=0.1, body_s=0.1, answer_s=0.2, linger_s=0.1)


@pytest.fixture(
    params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"], autouse=True
)
def _loop(request):
    """Every test runs on both loops: their transports differ in small ways."""
    asyncio.set_event_loop_policy(request.param())
    yield
    asyncio.set_event_loop_policy(None)


def test_one_connection_serves_many_requests():
    """Keep-alive, answers in order, a body in between."""

    async def run():
        view = ShownService()
        async with serving(view) as server, connected(server) as client:
            answers = [
                await client.get("/livez"),
                await client.get("/json", "POST", REQUEST),
                await client.get("/metrics"),
            ]
            return [answer.status for answer in answers], "connection" in answers[0].fields

    assert asyncio.run(run()) == ([200, 200, 200], False)


def test_pipelined_requests_are_answered_in_order():
    """They wait in the socket while one is answered."""
    head = b" HTTP/1.1\r\nHost: x\r\n"
    data = b"GET /metrics" + head + b"\r\nGET /livez" + head + b"\r\nGET /nowhere" + head + b"Connection: close\r\n\r\n"
    expected = [(200, b"a 1\nb 2\n"), (200, b"ok\n"), (404, b"no such page; / lists them\n")]

    assert raw(data, count=3) == (expected, b"")


def test_an_old_client_gets_the_whole_text_and_a_close():
    """HTTP/1.0 knows no chunks."""

    async def run():
        async with serving(ShownService()) as server, connected(server) as client:
            client.send(b"GET /metrics HTTP/1.0\r\n\r\n")
            return await client.closed()

    assert asyncio.run(run()).endswith(b"\r\n\r\na 1\nb 2\n")


def test_a_client_that_closes_its_half_still_gets_its_answer():
    """`nc` does so."""

    async def run():
        async with serving(ShownService()) as server, connected(server) as client:
            client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            client.writer.write_eof()
            return await client.closed()

    assert asyncio.run(run()).endswith(b"\r\n\r\nok\n")


def test_a_client_that_asks_to_go_on_is_told_to():
    """Expect: 100-continue, as curl sends it for large bodies."""

    async def run():
        async with serving(ShownService()) as server, connected(server) as client:
            client.send(b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 76\r\nExpect: 100-continue\r\n\r\n")
            told = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
            client.send(REQUEST)
            return told, (await client.answer("POST")).status

    assert len(REQUEST) == 76
    assert asyncio.run(run()) == (b"HTTP/1.1 100 Continue\r\n\r\n", 200)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"POST /json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_garbage_is_answered_400_and_the_connection_closed(data):
    """TLS, no Host, two lengths, an endless length, a broken chunk."""
    assert raw(data, limits=QUICK) == ([(400, b"this is no HTTP/1.1 request\n")], b"")


def test_garbage_after_a_head_request_is_answered_with_a_body():
    """The refusal belongs to the garbage, not to the request before it."""

    async def run():
        async with serving(ShownService(), QUICK) as server, connected(server) as client:
            await client.get("/livez", "HEAD")
            client.send(b"\x16\x03\r\n\r\n")
            return (await client.answer()).brief

    assert asyncio.run(run()) == (400, b"this is no HTTP/1.1 request\n")


def test_a_refused_head_request_gets_no_body():
    """413 like any other, without the text."""

    async def run():
        async with serving(ShownService(), QUICK) as server, connected(server) as client:
            client.send(b"HEAD /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n")
            return (await client.answer("HEAD")).brief, await client.closed()

    assert asyncio.run(run()) == ((413, b""), b"")


def test_what_comes_after_a_refusal_is_thrown_away():
    """So that the refusal is read and not lost in a reset."""

    async def run():
        async with serving(ShownService(), QUICK) as server, connected(server) as client:
            client.send(b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n")
            refused = (await client.answer("POST")).brief
            client.send(b" " * 100_000)
            return refused, await client.closed()

    assert asyncio.run(run()) == ((413, b"the body is larger than 1048576 bytes\n"), b"")


def test_another_version_of_http_is_answered_505():
    """The preface of HTTP/2 without an upgrade."""
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    assert raw(data, limits=QUICK) == ([(505, b"this server speaks HTTP/1.1 only\n")], b"")


def test_headers_beyond_the_cap_are_answered_431():
    """One byte of memory more than 16 KiB is not spent on them."""
    data = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 17_000

    assert raw(data, limits=QUICK) == ([(431, b"the headers are larger than 16384 bytes\n")], b"")


def test_headers_beyond_the_cap_are_refused_although_they_come_whole():
    """The cap does not depend on how the bytes are cut."""
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: "
    most = 16_384 - len(head) - len(b"\r\n")

    assert raw(head + b"a" * most + b"\r\n\r\n", limits=QUICK)[0] == [(200, b"ok\n")]
    refused = [(431, b"the headers are larger than 16384 bytes\n")]
    assert raw(head + b"a" * (most + 1) + b"\r\n\r\n", limits=QUICK) == (refused, b"")


def test_a_body_announced_too_large_is_refused_before_it_comes():
    """413 by Content-Length alone."""
    data = b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n"

    assert raw(data, limits=QUICK) == ([(413, b"the body is larger than 1048576 bytes\n")], b"")


def test_a_body_of_exactly_the_cap_is_read():
    """1 MiB passes; it is no JSON."""
    assert ask("/json", method="POST", body=b" " * 1_048_576).status == 400


def test_a_chunked_body_that_grows_too_large_is_refused():
    """413 as soon as it is."""
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    data = b"POST /json HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 17

    assert raw(data, limits=QUICK) == ([(413, b"the body is larger than 1048576 bytes\n")], b"")


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET /livez HT", (408, b"the headers took longer than 0.1 s\n")),
        (b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{", (408, b"the body took longer than 0.1 s\n")),
    ],
)
def test_a_slow_request_is_answered_408(data, answer):
    """Headers and body have a deadline each."""
    assert raw(data, limits=QUICK) == ([answer], b"")


def test_an_idle_connection_is_closed_without_a_word():
    """Nothing was asked."""
    assert raw(b"", limits=QUICK, count=0) == ([], b"")


def test_a_client_that_does_not_read_is_cut_and_its_slices_are_never_made():
    """Slices wait for the socket, and not for ever."""
    made = []

    def endless():
        while True:
            made.append(0)
            yield b"x" * 100_000

    async def run():
        view = ShownService()
        view.metrics = endless
        async with serving(view, QUICK) as server, connected(server) as client:
            client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(5):
                while not made or server.connections:  # noqa: ASYNC110 — the server tells nobody
                    await asyncio.sleep(0.05)

    asyncio.run(run())

    assert len(made) < 500


def test_one_connection_too_many_closes_the_oldest_idle_one():
    """Probes get through although clients keep connections open."""

    async def run():
        limits = AdminLimits(max_connections=1)
        async with serving(ShownService(), limits) as server, connected(server) as first:
            await first.get("/livez")
            async with connected(server) as second:
                return (await second.get("/livez")).status, server.connections

    assert asyncio.run(run()) == (200, 1)


def test_one_connection_too_many_is_refused_while_none_is_idle():
    """503, and the busy one goes on."""

    async def run():
        limits = AdminLimits(max_connections=1)
        async with serving(ShownService(), limits) as server, connected(server) as first:
            first.send(b"GET /li")
            await asyncio.sleep(0.05)
            async with connected(server) as second:
                refused = (await second.answer()).brief
            first.send(b"vez HTTP/1.1\r\nHost: x\r\n\r\n")
            return refused, (await first.answer()).brief

    assert asyncio.run(run()) == ((503, b"too many connections\n"), (200, b"ok\n"))


async def _broken(_view: AdminView, _query: Query) -> Page:
    raise RuntimeError("planted")


async def _half(_view: AdminView, _query: Query) -> Page:
    return Page(200, (b"half" if n == 0 else _raise() for n in range(2)))


def _raise() -> bytes:
    raise RuntimeError("planted")


def test_a_bug_in_a_page_is_answered_500():
    """And the server goes on."""
    routes = (Route("/broken", ("GET",), _broken, ""),)

    assert ask("/broken", routes=routes).brief == (500, b"internal error; the log has it\n")


def test_a_bug_in_the_midst_of_a_page_cuts_the_connection():
    """Half an answer must not look whole."""

    async def run():
        routes = (Route("/half", ("GET",), _half, ""),)
        async with serving(ShownService(), routes=routes) as server, connected(server) as client:
            client.send(b"GET /half HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                return await client.closed()
            except ConnectionResetError:
                return b""

    assert not asyncio.run(run()).endswith(b"0\r\n\r\n")


def test_an_address_that_is_taken_is_named():
    """The error says which one, and nothing stays bound."""

    async def run():
        view = ShownService()
        async with serving(view) as server:
            port = int(server.addresses[0].rpartition(":")[2])
            other = AdminServer([Address("127.0.0.1", 0), Address("127.0.0.1", port)], view, routes=ROUTES)
            with pytest.raises(CannotListen) as caught:
                await other.start()
            return str(caught.value).split(": ")[0] == f"cannot listen on 127.0.0.1:{port}", other.addresses

    assert asyncio.run(run()) == (True, [])


def test_a_unix_socket_is_served_and_counts_as_local(tmp_path):
    """Whoever can open the file is on this machine."""

    async def run():
        path = tmp_path / "admin.sock"
        server = AdminServer([Address(unix_path=str(path))], ShownService(), routes=ROUTES)
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /debug/config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await server.close()
        return answer[:15], server.addresses

    assert asyncio.run(run()) == (b"HTTP/1.1 200 OK", [])


def test_close_ends_idle_connections_and_lets_answers_finish():
    """The last answer says `Connection: close`."""

    async def run():
        async with serving(ShownService()) as server, connected(server) as idle, connected(server) as busy:
            await idle.get("/livez")
            busy.send(b"GET /livez HTTP/1.1\r\n")
            await asyncio.sleep(0.05)
            closing = asyncio.ensure_future(server.close(grace_s=2))
            await asyncio.sleep(0)
            busy.send(b"Host: x\r\n\r\n")
            answer = await busy.answer()
            await closing
            return await idle.closed(), answer.status, answer.fields["connection"]

    assert asyncio.run(run()) == (b"", 200, "close")


def test_close_cuts_what_does_not_finish():
    """After the grace nobody is waited for."""

    async def run():
        async with serving(ShownService()) as server, connected(server) as client:
            client.send(b"GET /li")
            await asyncio.sleep(0.05)
            await server.close(grace_s=0.05)
            return server.connections

    assert asyncio.run(run()) == 0


def test_a_scrape_of_fifty_thousand_series_hardly_stalls_the_loop():
    """All series arrive, and the loop turns between slices."""
    metrics = Metrics("1.2.3", max_series=60_000)
    for number in range(10_000):
        counters = metrics.counters.rule("shop", f"rule-{number}")
        counters.ok = counters.over = counters.shadow_over = counters.hits = counters.near_limit_hits = number + 1
    gaps = []

    async def watch():
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    async def run():
        view = ShownService()
        view.metrics = metrics.render
        async with serving(view) as server, connected(server) as client:
            watcher = asyncio.ensure_future(watch())
            answer = await client.get("/metrics")
            watcher.cancel()
            return answer

    answer = asyncio.run(run())
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}

    assert len(families["tidegate_decisions"].samples) == 30_000
    assert len(families["tidegate_hits"].samples) == 10_000
    # The client parses on the same loop, and the machine is shared: the median and the count tell, not the worst.
    assert len(gaps) > 150
    assert sorted(gaps)[len(gaps) // 2] < 0.005

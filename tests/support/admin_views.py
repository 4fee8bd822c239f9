"""A service for the admin pages to show, and a client that speaks HTTP by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import h11
import msgspec

from ratelimit_service.addresses import Address
from ratelimit_service.algorithms.limit import Algorithm, Limit, LimitSettings
from ratelimit_service.limiter.resetting import ResetAnswer, ResetCounter
from ratelimit_service.policy.identity import counter_key
from ratelimit_service.policy.snapshot import Action, Domain, Node, Rollout, Rule, RuleLimit, Snapshot
from ratelimit_service.quota.health import MemoryLevel, StoresHealth, all_health, store_health
from ratelimit_service.quota.store import NEVER_US, Usage
from ratelimit_service.transport.admin import AdminLimits, AdminServer
from ratelimit_service.transport.admin_pages import ROUTES
from ratelimit_service.transport.admin_routes import Route
from ratelimit_service.transport.admin_service import Readiness
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.rls.messages import CurrentLimit, Request, Status, Unit, Verdict

MINUTELY = Limit(algorithm=Algorithm.FIXED_WINDOW, requests=5, window_us=60_000_000, burst=5)
BUCKET = Limit(algorithm=Algorithm.TOKEN_BUCKET, requests=10, window_us=1_500_000, burst=20)
RULES = (
    Rule(
        domain="shop", name="user", action=Action.LIMIT, limits=(RuleLimit(b"id-user", MINUTELY),), origin="shop.yaml:3"
    ),
    Rule(
        domain="shop",
        name="plan",
        action=Action.LIMIT,
        shadow=True,
        count_denied=True,
        limits=(RuleLimit(b"id-plan", BUCKET),),
        rollout=Rollout(percent=10, limits=(RuleLimit(b"id-new", MINUTELY),)),
    ),
    Rule(domain="shop", name="probe", action=Action.ALLOW),
    Rule(domain="shop", name="bot", action=Action.DENY),
)
SNAPSHOT = Snapshot(
    version="0123456789abcdef",
    domains={b"shop": Domain(name="shop", profile="", root=Node(), rules=RULES)},
    limits={"": {b"id-user": LimitSettings(limit=MINUTELY, domain="shop", rule="user")}},
    rule_count=len(RULES),
)


class ShownService:
    """Implements `AdminView` with answers that a test sets."""

    version = "1.2.3"

    def __init__(self) -> None:
        self.state = Readiness(ready=True)
        self.health = all_health([("", store_health(l1=MemoryLevel(1, 10, 100, 1_000)))])
        self.in_force: Snapshot | None = SNAPSHOT
        self.answer: Verdict | GrpcError = Verdict(
            over=False,
            statuses=(Status(over=False, limit=CurrentLimit(5, Unit.MINUTE, "user"), remaining=4, reset_s=58),),
        )
        self.asked: list[Request] = []
        self.is_lost = False
        self.begun_anew = ResetAnswer("shop", counters=(ResetCounter(("user=bob",), "user", ("bob",), True, ""),))
        self.metrics: Callable[[], Iterator[bytes]] = lambda: iter((b"a 1\n", b"", b"b 2\n"))

    def readiness(self) -> Readiness:
        return self.state

    def render_metrics(self) -> Iterator[bytes]:
        return self.metrics()

    def cache_health(self) -> StoresHealth:
        return self.health

    def snapshot(self) -> Snapshot | None:
        return self.in_force

    async def decide(self, request: Request) -> Verdict | GrpcError:
        self.asked.append(request)
        return self.answer

    async def explain(self, request: Request) -> bytes:
        self.asked.append(request)
        return b'{"why":"so"}'

    async def reset(self, request: Request) -> ResetAnswer:
        self.asked.append(request)
        return self.begun_anew

    async def usage(self, domain: str, page: int) -> Sequence[Usage] | None:
        if self.is_lost or page > 1:
            return None if self.is_lost else ()
        return [
            Usage(identity=b"id-user", key=counter_key([b"bo\xffb", b"x"]), used=2 + page, remaining=3, wait_us=7),
            Usage(identity=b"id-user", key=counter_key([b"eve"]), used=5, remaining=0, wait_us=NEVER_US),
            Usage(identity=b"id-gone", key=b"x", used=1, remaining=0, wait_us=0),
            Usage(identity=b"", key=b"shop_user_bob_60", used=1, remaining=0, wait_us=9),
        ]


UNAVAILABLE = GrpcError(GrpcCode.UNAVAILABLE, "no configuration")


class Client:
    """One connection: raw bytes out, parsed answers in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await asyncio.wait_for(self.reader.read(65_536), 5))
        return event

    async def answer(self, method: str = "GET") -> Answered:
        """The next answer; `method` is that of its request."""
        self._http.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        self._http.send(h11.EndOfMessage())
        head = await self._event()
        while isinstance(head, h11.InformationalResponse):
            head = await self._event()
        assert isinstance(head, h11.Response), head
        body = b""
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
        fields = {name.decode(): value.decode() for name, value in head.headers}
        if self._http.states[h11.SERVER] is h11.DONE and self._http.states[h11.CLIENT] is h11.DONE:
            self._http.start_next_cycle()
        return Answered(head.status_code, body, fields)

    async def get(self, target: str, method: str = "GET", body: bytes = b"", extra: str = "") -> Answered:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{length}{extra}\r\n".encode() + body)
        return await self.answer(method)

    async def closed(self) -> bytes:
        """What comes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 5)


class Answered(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    fields: dict[str, str]

    @property
    def brief(self) -> tuple[int, bytes]:
        return self.status, self.body


@asynccontextmanager
async def serving(
    view: ShownService,
    limits: AdminLimits | None = None,
    exposed: frozenset[str] = frozenset(),
    routes: Sequence[Route] = ROUTES,
) -> AsyncIterator[AdminServer]:
    """An admin server on a free loopback port."""
    address = Address(host="127.0.0.1", port=0)
    server = AdminServer([address], view, limits=limits, exposed=exposed, routes=routes)
    await server.start()
    try:
        yield server
    finally:
        await server.close(grace_s=0.5)


@asynccontextmanager
async def connected(server: AdminServer) -> AsyncIterator[Client]:
    host, _, port = server.addresses[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def ask(target, *, method="GET", body=b"", view=None, limits=None, exposed=frozenset(), extra="", routes=ROUTES):
    """One request on a connection of its own."""

    async def run():
        async with serving(view or ShownService(), limits, exposed, routes) as server, connected(server) as client:
            return await client.get(target, method, body, extra)

    return asyncio.run(run())


def raw(data, *, limits=None, view=None, routes=ROUTES, count=1):
    """Send bytes as they are; `count` answers and what follows until the server closes."""

    async def run():
        async with serving(view or ShownService(), limits, routes=routes) as server, connected(server) as client:
            client.send(data)
            return [(await client.answer()).brief for _ in range(count)], await client.closed()

    return asyncio.run(run())

"""The admin pages of the parent: its own readiness, the workers' metrics added up, and theirs for all the rest."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import msgspec

from ratelimit_service.telemetry.catalogue import READY, WORKERS
from ratelimit_service.telemetry.exposition import CONTENT_TYPE, sample
from ratelimit_service.telemetry.process import ProcessMetrics
from ratelimit_service.telemetry.sums import Scrape, add_ended, read_scrape, summed
from ratelimit_service.transport import admin_pages
from ratelimit_service.transport.admin_routes import JSON, Page, Query, Route
from ratelimit_service.transport.admin_service import Readiness
from ratelimit_service.workers.forward import WorkerSilentError, ask_worker, silence

_SCRAPE_S: Final = 2.0
_PAGE_S: Final = 30.0


class WorkerState(msgspec.Struct, frozen=True):
    """A worker, as `/debug/workers` shows it.

    Attributes:
        number: From 0.
        pid: Of its process; 0: there is none just now.
        ready: It takes connections.
        reason: Not ready: why.
        connections: That it has.
        starts: Times that it was started.
    """

    number: int
    pid: int
    ready: bool
    reason: str
    connections: int
    starts: int


class Staff(Protocol):
    """The workers, as the pages see them."""

    def readiness(self) -> Readiness:
        """Of the service as a whole."""

    def states(self) -> list[WorkerState]:
        """Every worker, in order."""

    def sockets(self) -> list[tuple[int, str]]:
        """Number of each worker that runs, and the path of its admin pages; those that are ready first."""


class StaffPages:
    """Handlers that ask the workers. Belongs to one event loop."""

    def __init__(self, staff: Staff) -> None:
        """Ask `staff`."""
        self._staff = staff
        self._last: dict[int, Scrape] = {}
        self._ended: Scrape = {}
        self._process = ProcessMetrics()

    def routes(self) -> Sequence[Route[Staff]]:
        """The table of pages; the same paths and guards as those of a service without workers, and one more."""
        own = {
            "/": self.index,
            "/livez": self.livez,
            "/readyz": self.readyz,
            "/healthcheck": self.healthcheck,
            "/metrics": self.metrics,
        }
        routes = [
            Route(route.path, route.methods, own.get(route.path) or _Forward(route.path), route.meaning, route.guard)
            for route in admin_pages.ROUTES
        ]
        return (*routes, Route("/debug/workers", ("GET",), self.workers, "how each worker is", "/debug"))

    async def index(self, _staff: Staff, _query: Query) -> Page:
        """The list of pages."""
        return Page(200, "".join(f"{route.path:<14} {route.meaning}\n" for route in self.routes()).encode())

    async def livez(self, _staff: Staff, _query: Query) -> Page:
        """200 while the parent turns its event loop."""
        return Page(200, b"ok\n")

    async def readyz(self, staff: Staff, _query: Query) -> Page:
        """200 while a worker takes connections; the body names those that do not, and the workers' problems."""
        return admin_pages.readiness_page(staff.readiness())

    async def healthcheck(self, staff: Staff, query: Query) -> Page:
        """`/readyz` as upstream's probes expect it: the body is `OK`."""
        return Page(200, b"OK") if staff.readiness().ready else await self.readyz(staff, query)

    async def workers(self, staff: Staff, _query: Query) -> Page:
        """How each worker is."""
        return Page(200, msgspec.json.encode(staff.states()) + b"\n", JSON)

    async def metrics(self, staff: Staff, _query: Query) -> Page:
        """The sum of what the workers count; one that does not answer counts with what it last said."""
        await asyncio.gather(*(self._scrape(number, path) for number, path in staff.sockets()))
        return Page(200, self._rendered(staff), CONTENT_TYPE)

    def forget(self, number: int) -> None:
        """A worker has ended: what it had counted stays in the sums."""
        add_ended(self._ended, self._last.pop(number, {}))

    async def _scrape(self, number: int, path: str) -> None:
        try:
            page = await ask_worker(path, "/metrics", Query("GET", (), b""), _SCRAPE_S)
        except WorkerSilentError:
            return
        assert isinstance(page.body, bytes)
        self._last[number] = read_scrape(page.body.decode())

    def _rendered(self, staff: Staff) -> Iterator[bytes]:
        own = read_scrape("".join(self._process.lines()))
        yield from summed([*self._last.values(), own], self._ended)
        lines = [READY.head, sample(READY.name, int(staff.readiness().ready))]
        for field, metric in WORKERS.items():
            lines.append(metric.head)
            lines += [
                sample(metric.name, int(getattr(state, field)), worker=str(state.number)) for state in staff.states()
            ]
        yield "".join(lines).encode()


class _Forward:
    """A handler that passes a page's requests on to a worker, to each in turn."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._turn = itertools.count()

    async def __call__(self, staff: Staff, query: Query) -> Page:
        sockets = staff.sockets()
        if not sockets:
            return silence("no worker is running")
        _, socket_path = sockets[next(self._turn) % len(sockets)]
        try:
            return await ask_worker(socket_path, self._path, query, _PAGE_S)
        except WorkerSilentError as error:
            return silence(f"the worker does not answer: {error}")

"""The links to all masters, kept up: who has a key, and what this process has heard.

A link that ends is dialled again, with growing pauses, until it is back; meanwhile commands fail at once. Every change
of the links ends the epoch of `staleness`, for all keys: with several nodes that voids more than the one node's keys,
and it is right without knowing which.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.cache.l2.dial import Dialer, Place, discover
from ratelimit_service.cache.l2.keys import KeySpace
from ratelimit_service.cache.l2.scripts import SCRIPTS
from ratelimit_service.cache.staleness import NEVER_HEARD_US
from ratelimit_service.cache.tracking import CommandRefused, Link
from ratelimit_service.policy.profile_model import CoherenceMode
from ratelimit_service.redis_server.address_model import Endpoint, Layout
from ratelimit_service.redis_server.slots import SLOTS, slot_of, tag_within

__all__ = ["News", "Nodes"]

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_LOOK_AGAIN_S: Final = 15.0
_STALLED_US: Final = 3_000_000


class News(Protocol):
    """Who wants to know what changed in Redis; called on the loop, must not wait."""

    def keys_changed(self, names: list[bytes] | None) -> None:
        """These Redis keys changed; None: any may have."""

    def epoch_ended(self) -> None:
        """Changes may have been missed."""


class Nodes:
    """Links to the masters.

    Attributes:
        mode: How changes are heard of now: as asked for, or less where the servers cannot do it.
        reason: Why the level is down, or why `mode` is less than was asked for; empty: neither.
        losses: Links that were lost since the start.
    """

    def __init__(
        self, dialer: Dialer, space: KeySpace, news: News, now_us: Callable[[], int], wanted: CoherenceMode
    ) -> None:
        self._dialer = dialer
        self._space = space
        self._news = news
        self._now_us = now_us
        self._wanted = wanted
        self.mode = wanted
        self.reason = "not connected yet"
        self.losses = 0
        self._places: tuple[Place, ...] = ()
        self._links: dict[Endpoint, Link] = {}
        self._channels: dict[Endpoint, Link] = {}
        self._owners: list[Endpoint | None] = [None] * SLOTS
        self._hearing: tuple[Link, ...] = ()
        self._changed = asyncio.Event()
        self._tried = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether every master is connected."""
        return bool(self._places) and len(self._links) == len(self._places)

    @property
    def is_clustered(self) -> bool:
        """Whether keys are spread over several masters."""
        return self._dialer.address.layout is Layout.CLUSTER

    @property
    def heard_us(self) -> int:
        """Up to when all changes have been heard of (`staleness.Hearing`)."""
        if len(self._hearing) == 1:
            return self._hearing[0].heard_us
        return min((link.heard_us for link in self._hearing), default=NEVER_HEARD_US)

    @property
    def hearing(self) -> tuple[Link, ...]:
        """The links that changes are heard on; empty while they are not."""
        return self._hearing

    def links(self) -> Mapping[Endpoint, Link]:
        """The links that are up."""
        return self._links

    def link_of(self, name: bytes) -> Link:
        """The link to the master of a Redis key.

        Raises:
            LevelUnavailable: It is not connected.
        """
        if len(self._places) == 1:
            endpoint: Endpoint | None = self._places[0].endpoint
        else:
            endpoint = self._owners[slot_of(name)]
        link = self._links.get(endpoint) if endpoint is not None else None
        if link is None:
            raise LevelUnavailable("l2", self.reason or "no master has this slot")
        return link

    async def start(self, *, wait_us: int) -> None:
        """Begin to connect, and wait for the first try to end, `wait_us` at the most. Raises nothing."""
        self._keeping = asyncio.get_running_loop().create_task(self._keep(), name="tidegate-cache-nodes")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_us / 1e6):
                await self._tried.wait()

    async def close(self) -> None:
        """End all links."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait((self._keeping,))
            self._keeping = None
        self._hearing = ()
        for link in (*self._links.values(), *self._channels.values()):
            await link.close()
        self._links.clear()
        self._channels.clear()
        self.reason = "closed"

    def look_again(self) -> None:
        """The cluster says that slots have moved, or a master that it is none any more."""
        self._changed.set()

    def drop_stalled(self, now_us: int) -> None:
        """Give up links on which nothing was answered for long; they are dialled anew."""
        for link in (*self._links.values(), *self._channels.values()):
            oldest_us = link.oldest_unanswered_us
            if oldest_us is not None and now_us - oldest_us > _STALLED_US:
                link.abort(f"nothing was answered for {_STALLED_US // 1_000_000} s")

    def keys_changed(self, link: Link, keys: list[bytes] | None) -> None:
        """See `tracking.Listener`."""
        self._news.keys_changed(keys)

    def link_lost(self, link: Link, reason: str) -> None:
        """See `tracking.Listener`."""
        for links in (self._links, self._channels):
            for endpoint, each in list(links.items()):
                if each is link:
                    del links[endpoint]
        self.losses += 1
        self.reason = reason
        self._end_epoch()
        self._changed.set()

    def _end_epoch(self) -> None:
        self._hearing = ()
        self._news.epoch_ended()

    async def _keep(self) -> None:
        """Have a link to every master, for as long as the level is open."""
        pause_s = _FIRST_PAUSE_S
        while True:
            self._changed.clear()
            try:
                await self._connect_all()
            except LevelUnavailable as error:
                self.reason = error.reason
                self._tried.set()
                # Replicas that lost one Redis together do not come back together.
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                continue
            pause_s = _FIRST_PAUSE_S
            self._tried.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN_S if self.is_clustered else None):
                    await self._changed.wait()

    async def _connect_all(self) -> None:
        places = await discover(self._dialer)
        wanted = {place.endpoint for place in places}
        for endpoint in [each for each in self._links if each not in wanted]:
            link = self._links.pop(endpoint)
            self._end_epoch()
            await link.close()
        for place in places:
            if place.endpoint not in self._links:
                self._links[place.endpoint] = await self._open(place)
                self._hearing = ()
        if self.mode is CoherenceMode.PUB_SUB and not self.is_clustered:
            await self._subscribe(places[0].endpoint)
        if any(not link.is_up for link in (*self._links.values(), *self._channels.values())):
            raise LevelUnavailable("l2", self.reason or "a link was lost while others were connected")
        if places != self._places or not self._hearing:
            self._places = places
            self._owners = [None] * SLOTS
            for place in places:
                for held in place.slots:
                    self._owners[held.start : held.stop] = [place.endpoint] * len(held)
            self._settle()

    def _settle(self) -> None:
        """All links are up: a new epoch begins, of which everything will be heard."""
        self._news.epoch_ended()
        if self.mode is CoherenceMode.TRACKING:
            self._hearing = tuple(self._links.values())
        else:
            self._hearing = tuple(self._channels.values())

    async def _open(self, place: Place) -> Link:
        """Dial one master, make sure that it is one, load the scripts, switch tracking on."""
        connection, pushes = await self._dialer.dial(place.endpoint)
        timeout_us = self._dialer.address.connect_us
        link = Link(connection, self, self._now_us, pushes=pushes)
        try:
            await self._check_master(link, place.endpoint, timeout_us)
            for script in SCRIPTS.values():
                await link.call("SCRIPT", "LOAD", script.text, timeout_us=timeout_us)
            await self._listen(link, place, timeout_us)
        except BaseException:
            await link.close()
            raise
        return link

    @staticmethod
    async def _check_master(link: Link, endpoint: Endpoint, timeout_us: int) -> None:
        try:
            role = await link.call("ROLE", timeout_us=timeout_us)
        except CommandRefused:
            return  # The user may not ask; a replica will refuse the first write.
        if role[0] != b"master":
            raise LevelUnavailable("l2", f"{endpoint} is a {role[0].decode()}, not a master")

    async def _listen(self, link: Link, place: Place, timeout_us: int) -> None:
        if self._wanted is not CoherenceMode.TRACKING:
            self.mode, self.reason = self._wanted, ""
            return
        held = frozenset(slot for each in place.slots for slot in each) if self.is_clustered else range(SLOTS)
        tag = tag_within(held) or b"0"
        probe = self._space.probe(tag, f"{random.getrandbits(64):x}")
        if await link.track(probe, timeout_us=timeout_us):
            self.mode, self.reason = CoherenceMode.TRACKING, ""
        elif link.is_up:
            fallback = CoherenceMode.TTL if self.is_clustered else CoherenceMode.PUB_SUB
            self.mode, self.reason = fallback, f"{place.endpoint} does not tell what changes (CLIENT TRACKING)"
        else:
            raise LevelUnavailable("l2", f"{place.endpoint} was lost while tracking was switched on")

    async def _subscribe(self, endpoint: Endpoint) -> None:
        if endpoint in self._channels:
            return
        connection = await self._dialer.dial_plain(endpoint)
        channel = Link(connection, self, self._now_us, pushes=False, subscribed=True)
        try:
            await channel.call("SUBSCRIBE", self._space.channel, timeout_us=self._dialer.address.connect_us)
        except BaseException:
            await channel.close()
            raise
        self._channels[endpoint] = channel
        self._hearing = ()

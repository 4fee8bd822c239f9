"""The level in Redis: payloads, leases, versions of tags and prefixes, and whether it answers.

It fails by `LevelUnavailable`, at once while it is known to be down: after a lost link until the link is back, after
several timeouts in a row until a probe is answered. Whoever calls goes on without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ratelimit_service.cache.errors import LevelUnavailable
from ratelimit_service.cache.l2.answers import MOST_PREFIXES, Found, Granted, LeaseAnswer, PrefixState, Taken
from ratelimit_service.cache.l2.dial import Dialer
from ratelimit_service.cache.l2.keys import KeySpace
from ratelimit_service.cache.l2.nodes import News, Nodes
from ratelimit_service.cache.l2.scripts import SCRIPTS, ScriptName
from ratelimit_service.cache.tracking import Argument, CommandRefused, Link, Reply
from ratelimit_service.policy.profile_model import CoherenceMode
from ratelimit_service.redis_server.address_model import DEFAULT_COMMAND_US, RedisAddress

__all__ = ["RedisLevel"]

DEFAULT_TIMEOUT_US: Final = 250_000
"""Time for one round trip where the address does not say; a value cache may wait longer than a verdict."""

_TIMEOUTS_UNTIL_DOWN: Final = 3
_LEAST_BEAT_S: Final = 0.005
_LONGEST_BEAT_S: Final = 1.0
_IDLE_BEAT_S: Final = 5.0


class RedisLevel:
    """See the module.

    Attributes:
        nodes: The links.
        calls, failures, timeouts: Commands since the start.
    """

    def __init__(
        self,
        address: RedisAddress,
        news: News,
        now_us: Callable[[], int],
        *,
        mode: CoherenceMode = CoherenceMode.TRACKING,
        delta_us: int = 100_000,
    ) -> None:
        self.space = KeySpace(address.key_prefix)
        self.nodes = Nodes(Dialer(address), self.space, news, now_us, mode)
        self.calls = 0
        self.failures = 0
        self.timeouts = 0
        self._address = address
        self._now_us = now_us
        self._delta_us = delta_us
        given = address.command_us != DEFAULT_COMMAND_US
        self._timeout_us = address.command_us if given else DEFAULT_TIMEOUT_US
        self._owner = secrets.token_hex(8)
        self._timeouts_in_a_row = 0
        self._beating: asyncio.Task[None] | None = None
        self._catching_up: asyncio.Task[bool] | None = None
        self._catch_up_began_us = 0
        self._read_since_beat = False
        self._wake = asyncio.Event()
        # A cluster's channel reaches every node, so it is used only where somebody needs it.
        self._announces = not (self.nodes.is_clustered and mode is CoherenceMode.TRACKING)

    @property
    def is_up(self) -> bool:
        """Whether it is worth asking."""
        return self.nodes.is_up and self._timeouts_in_a_row < _TIMEOUTS_UNTIL_DOWN

    @property
    def reason(self) -> str:
        """Why it is down, empty while it is up."""
        if self._timeouts_in_a_row >= _TIMEOUTS_UNTIL_DOWN:
            return f"{self._timeouts_in_a_row} commands in a row were not answered in time"
        return "" if self.nodes.is_up else self.nodes.reason or "not connected"

    def set_delta(self, delta_us: int) -> None:
        """Keep hearing often enough for another Δ."""
        self._delta_us = delta_us

    async def start(self) -> None:
        """Begin to connect; waits for the first try. Raises nothing: what is down comes back by itself."""
        await self.nodes.start(wait_us=2 * self._address.connect_us)
        self._beating = asyncio.get_running_loop().create_task(self._beat(), name="tidegate-cache-beat")

    async def close(self) -> None:
        """End all links."""
        for task in (self._beating, self._catching_up):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,))
        self._beating = self._catching_up = None
        await self.nodes.close()

    async def read(self, key: str) -> bytes | None:
        """A value's payload; from now on changes of the key are told.

        Raises:
            LevelUnavailable: As everywhere here.
        """
        name = self.space.value(key)
        payload: bytes | None = await self._call(name, "GET", name)
        return payload

    async def store(self, key: str, payload: bytes, *, lifetime_us: int) -> None:
        """Keep a payload, whoever loads the key meanwhile."""
        names = self.space.value(key), self.space.lease(key)
        await self._run(ScriptName.STORE, names, payload, _milliseconds(lifetime_us), *self._announcement(names[0]))

    async def drop(self, key: str) -> bool:
        """Remove a payload, and end the lease of its load; whether there was one."""
        names = self.space.value(key), self.space.lease(key)
        return bool(await self._run(ScriptName.DROP, names, *self._announcement(names[0])))

    async def lease(self, key: str, *, lease_us: int, unfit: bytes | None = None) -> LeaseAnswer:
        """Ask for the right to load a value; from now on changes of value and lease are told.

        Args:
            key: Which value.
            lease_us: For how long, unless prolonged.
            unfit: A payload that will not do (a void or expired one).
        """
        names = self.space.value(key), self.space.lease(key)
        sha1 = b"" if unfit is None else _sha1(unfit)
        owner = f"{self._owner}{secrets.token_hex(4)}"
        kind, what = await self._run(ScriptName.LEASE, names, owner, _milliseconds(lease_us), sha1)
        if kind == 0:
            return Found(what)
        return Granted(what) if kind == 1 else Taken(max(0, what) * 1000)

    async def fill(self, key: str, lease: Granted, payload: bytes, *, lifetime_us: int) -> bool:
        """Store what was loaded under a lease; False: something came between, so it is not kept."""
        names = self.space.value(key), self.space.lease(key)
        reply = await self._run(
            ScriptName.FILL, names, lease.lease, payload, _milliseconds(lifetime_us), *self._announcement(names[0])
        )
        return bool(reply)

    async def release(self, key: str, lease: Granted) -> bool:
        """Give a lease back, so that others need not wait for its end; whether it was still held."""
        name = self.space.lease(key)
        return bool(await self._run(ScriptName.RELEASE, (name,), lease.lease, 0, *self._announcement(name)))

    async def prolong(self, key: str, lease: Granted, *, lease_us: int) -> bool:
        """Hold a lease for longer; whether it was still held."""
        name = self.space.lease(key)
        return bool(await self._run(ScriptName.RELEASE, (name,), lease.lease, _milliseconds(lease_us), b"", b""))

    async def tag_version(self, tag: str, *, lifetime_us: int, new: bool = False) -> int:
        """A tag's version, a new one if asked for; it is remembered for `lifetime_us` at least half."""
        name = self.space.tag(tag)
        arguments = (int(new), _milliseconds(lifetime_us), *self._announcement(name))
        return int(await self._run(ScriptName.TAG, (name,), *arguments))

    async def prefixes(self, add: str | None = None) -> PrefixState:
        """What was invalidated by prefix, `add` included."""
        name = self.space.prefixes
        arguments = (int(add is not None), add or "", MOST_PREFIXES, *self._announcement(name))
        packed = await self._run(ScriptName.PREFIXES, (name,), *arguments)
        return msgspec.msgpack.decode(packed, type=PrefixState)

    async def dictionary(self, dictionary_id: int | None) -> bytes | None:
        """A published dictionary, or (None) the one in use; None where there is none."""
        name = self.space.current_dictionary if dictionary_id is None else self.space.dictionary(dictionary_id)
        data: bytes | None = await self._call(name, "GET", name)
        return data

    async def publish_dictionary(self, dictionary_id: int, data: bytes, *, lifetime_us: int) -> None:
        """Have all replicas be able to read with a dictionary, then have them use it."""
        for name in (self.space.dictionary(dictionary_id), self.space.current_dictionary):
            await self._call(name, "SET", name, data, "PX", _milliseconds(lifetime_us))

    def note_read(self) -> None:
        """A value in memory was asked for: keep hearing, so that the next one need not wait."""
        if not self._read_since_beat:
            self._read_since_beat = True
            self._wake.set()

    async def catch_up(self) -> bool:
        """Hear of everything that Redis executed before this call; whether that worked. One round trip for all."""
        now_us = self._now_us()
        task = self._catching_up
        # A barrier that began within Δ is good enough: the rule is about the time at which it was sent.
        if task is None or task.done() or now_us - self._catch_up_began_us > self._delta_us:
            self._catch_up_began_us = now_us
            task = asyncio.get_running_loop().create_task(self._barrier(), name="tidegate-cache-barrier")
            self._catching_up = task
        await asyncio.wait((task,))
        return not task.cancelled() and task.result()

    async def _barrier(self) -> bool:
        hearing, masters = self.nodes.hearing, self.nodes.links().values()
        try:
            # ROLE tells besides that it is still the master; a connection that is subscribed takes only PING.
            roles = [(link, link.send("ROLE")) for link in masters]
            pongs = [link.send("PING") for link in hearing if link not in masters]
            self.calls += len(roles) + len(pongs)
            for link, future in roles:
                with contextlib.suppress(CommandRefused):
                    role = await self._answer(future)
                    if role[0] != b"master":
                        link.abort("the master became a replica")
            for future in pongs:
                await self._answer(future)
        except LevelUnavailable:
            return False
        return bool(hearing)

    async def _beat(self) -> None:
        """Keep hearing while values are read; when idle, look after the links only."""
        while True:
            self._wake.clear()
            if not self._read_since_beat:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE_BEAT_S):
                        await self._wake.wait()
            is_read, self._read_since_beat = self._read_since_beat, False
            self.nodes.drop_stalled(self._now_us())
            if is_read or not self.is_up:
                # Also where replies to others were heard lately: only this one asks for the role.
                await self.catch_up()
            await asyncio.sleep(min(_LONGEST_BEAT_S, max(_LEAST_BEAT_S, self._delta_us / 2e6)))

    def _check_up(self) -> None:
        if not self.is_up:
            self._wake.set()
            raise LevelUnavailable("l2", self.reason)

    async def _call(self, name: bytes, *parts: Argument) -> Reply:
        self._check_up()
        self.calls += 1
        return await self._answer(self.nodes.link_of(name).send(*parts))

    async def _run(self, script: ScriptName, names: Sequence[bytes], *arguments: Argument) -> Reply:
        try:
            return await self._call(names[0], "EVALSHA", SCRIPTS[script].sha1, len(names), *names, *arguments)
        except CommandRefused as error:
            if error.code != "NOSCRIPT":
                raise
        return await self._call(names[0], "EVAL", SCRIPTS[script].text, len(names), *names, *arguments)

    async def _answer(self, future: asyncio.Future[Reply]) -> Reply:
        try:
            reply = await Link.reply(future, timeout_us=self._timeout_us)
        except CommandRefused as error:
            self._timeouts_in_a_row = 0
            if error.code in {"MOVED", "ASK", "CLUSTERDOWN", "READONLY"}:
                self.nodes.look_again()
            self.failures += error.code != "NOSCRIPT"
            raise
        except LevelUnavailable:
            self.failures += 1
            if future.cancelled():
                self.timeouts += 1
                self._timeouts_in_a_row += 1
            raise
        self._timeouts_in_a_row = 0
        return reply

    def _announcement(self, name: bytes) -> tuple[bytes, bytes]:
        announces = self._announces or self.nodes.mode is CoherenceMode.PUB_SUB
        return (self.space.channel, name) if announces else (b"", b"")


def _milliseconds(duration_us: int) -> int:
    return max(1, -(-duration_us // 1000))


def _sha1(payload: bytes) -> bytes:
    """As Redis' `redis.sha1hex`; it tells payloads apart and protects nothing."""
    return hashlib.sha1(payload, usedforsecurity=False).hexdigest().encode()

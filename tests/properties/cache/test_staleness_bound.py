"""A model of one Redis and one replica: whatever happens in whatever order, nothing older than Δ is served.

Redis executes commands in the order of the link, and other clients' writes between them. Replies and pushes come back
in the order of one stream. Time passes anywhere. Values are numbers that only grow, so an old one is recognised.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ratelimit_service.cache.staleness import NEVER_HEARD_US, UNWATCHED, Fills, FillToken, serves

KEY: Final = "k"
DELTA_US: Final = 3


class Step(enum.Enum):
    """What may happen next."""

    SEND_READ = "the replica asks for the key"
    SEND_WRITE = "the replica writes the key, and reads it anew in the same script"
    SEND_PING = "the replica asks for nothing, to hear"
    EXECUTE = "Redis executes the oldest command"
    FOREIGN_WRITE = "another client writes the key"
    DELIVER = "the oldest reply or push arrives"
    KEEP_OLDEST = "what came with the oldest reply is kept, if it may be: the reader was put off until now"
    KEEP_NEWEST = "the same with the newest"
    CUT = "the connection ends"
    CONNECT = "a connection begins"
    LOAD = "the replica, without Redis, loads from the source"
    TICK = "a microsecond passes"


class Command(msgspec.Struct, frozen=True):
    """On its way to Redis."""

    step: Step
    sent_us: int
    token: FillToken | None


class Reply(msgspec.Struct, frozen=True):
    """On its way back."""

    command: Command
    value: int


class Push(msgspec.Struct, frozen=True):
    """The key has changed."""


class Replica:
    """What a replica does; its methods are the places of the planted bugs."""

    def __init__(self) -> None:
        self.fills = Fills()
        self.epoch = 0
        self.heard_us = NEVER_HEARD_US
        self.memory: tuple[int, int, int] | None = None

    def begin(self, now_us: int) -> FillToken:
        return self.fills.begin(KEY, self.epoch, now_us)

    def hear(self, sent_us: int, now_us: int) -> None:
        self.heard_us = max(self.heard_us, sent_us)

    def may_keep(self, token: FillToken, *, wrote: bool) -> bool:
        return self.fills.settle(token, self.epoch, wrote=wrote)

    def keep(self, reply: Reply) -> None:
        token = reply.command.token
        assert token is not None
        wrote = reply.command.step is Step.SEND_WRITE
        if self.may_keep(token, wrote=wrote):
            self.memory = (reply.value, token.epoch, token.began_us)
        elif wrote:
            self.memory = None

    def take_push(self) -> None:
        self.fills.revoke(KEY)
        self.memory = None

    def lose(self) -> None:
        self.epoch += 1
        self.heard_us = NEVER_HEARD_US
        self.fills.revoke_all()

    def load(self, value: int, now_us: int) -> None:
        if self.fills.settle(self.begin(now_us), self.epoch, wrote=True):
            self.memory = (value, UNWATCHED, now_us)

    def serve(self, now_us: int) -> int | None:
        if self.memory is None:
            return None
        value, epoch, filled_us = self.memory
        current = serves(
            epoch, filled_us, now_epoch=self.epoch, heard_us=self.heard_us, now_us=now_us, delta_us=DELTA_US
        )
        return value if current else None


class World:
    """Redis, the link, and the time."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.now_us = 0
        self.value = 0
        self.written: list[tuple[int, int]] = [(NEVER_HEARD_US, 0)]
        self.is_watched = False
        self.is_connected = True
        self.to_redis: deque[Command] = deque()
        self.to_replica: deque[Reply | Push] = deque()
        self.arrived: deque[Reply] = deque()
        self.too_old: list[tuple[int, int]] = []

    def play(self, step: Step) -> None:
        match step:
            case Step.SEND_READ | Step.SEND_WRITE if self.is_connected:
                self.to_redis.append(Command(step, self.now_us, self.replica.begin(self.now_us)))
            case Step.SEND_PING if self.is_connected:
                self.to_redis.append(Command(step, self.now_us, None))
            case Step.EXECUTE if self.to_redis:
                self._execute(self.to_redis.popleft())
            case Step.FOREIGN_WRITE:
                self._write()
                if self.is_watched:
                    self.to_replica.append(Push())
                self.is_watched = False
            case Step.DELIVER if self.to_replica:
                self._deliver(self.to_replica.popleft())
            case Step.KEEP_OLDEST if self.arrived:
                self.replica.keep(self.arrived.popleft())
            case Step.KEEP_NEWEST if self.arrived:
                self.replica.keep(self.arrived.pop())
            case Step.CUT if self.is_connected:
                self._end_connection()
            case Step.CONNECT if not self.is_connected:
                self.is_connected = True
                self.replica.lose()
            case Step.LOAD if not self.is_connected:
                self.replica.load(self.value, self.now_us)
            case Step.TICK:
                self.now_us += 1
            case _:
                return
        self._look()

    def _deliver(self, item: Reply | Push) -> None:
        if isinstance(item, Push):
            self.replica.take_push()
            return
        self.replica.hear(item.command.sent_us, self.now_us)
        if item.command.token is not None:
            self.arrived.append(item)

    def _end_connection(self) -> None:
        # Commands that were sent may still be executed; what Redis says is lost.
        while self.to_redis:
            self._execute(self.to_redis.popleft())
        self.is_connected = self.is_watched = False
        self.to_replica.clear()
        self.replica.lose()

    def settle(self) -> None:
        """Let everything arrive, and have heard of it."""
        for step in (
            Step.CONNECT,
            *[*[Step.EXECUTE] * 40, *[Step.DELIVER] * 80, *[Step.KEEP_OLDEST] * 40],
            *[Step.TICK] * (DELTA_US + 1),
            *[Step.SEND_PING, Step.EXECUTE, Step.DELIVER],
        ):
            self.play(step)

    def _write(self) -> None:
        self.value += 1
        self.written.append((self.now_us, self.value))

    def _execute(self, command: Command) -> None:
        if command.step is Step.SEND_WRITE:
            self._write()
        self.is_watched = self.is_watched or command.token is not None
        self.to_replica.append(Reply(command, self.value))

    def _look(self) -> None:
        served = self.replica.serve(self.now_us)
        least = max(value for at_us, value in self.written if at_us < self.now_us - DELTA_US)
        if served is not None and served < least:
            self.too_old.append((served, least))


def play(replica: Replica, steps: list[Step]) -> World:
    """Play a schedule to its end."""
    world = World(replica)
    for step in steps:
        world.play(step)
    return world


schedules = st.lists(st.sampled_from(Step), max_size=40)

_READ: Final = [Step.SEND_READ, Step.EXECUTE, Step.DELIVER, Step.KEEP_OLDEST]
_PING: Final = [Step.SEND_PING, Step.EXECUTE, Step.DELIVER]
_TIME: Final = [Step.TICK] * 2
RACE: Final = [
    *[Step.SEND_READ, Step.EXECUTE, Step.FOREIGN_WRITE, Step.DELIVER, Step.DELIVER, Step.KEEP_OLDEST],
    *[*_TIME, *_PING, *_TIME],
]
"""A read, a foreign write, and only then is what was read kept."""
OWN_RACE: Final = [
    *[Step.SEND_READ, Step.SEND_WRITE, Step.EXECUTE, Step.EXECUTE, Step.DELIVER, Step.DELIVER],
    *[Step.KEEP_NEWEST, Step.KEEP_OLDEST, *_TIME, *_PING, *_TIME],
]
"""A read and then a write of this replica, kept in the other order."""
LATE_REPLY: Final = [*_READ, Step.SEND_PING, Step.EXECUTE, Step.FOREIGN_WRITE, *[Step.TICK] * 4, Step.DELIVER]
"""A reply that was long on its way, and the push behind it still is."""
HOLE: Final = [*_READ, Step.CUT, Step.FOREIGN_WRITE, Step.CONNECT, *_TIME, *_PING, *_TIME]
"""A write while there was no connection."""
LATE_LOAD: Final = [Step.CUT, Step.LOAD, Step.FOREIGN_WRITE, Step.CONNECT, *_TIME, *_PING, *_TIME]
"""A value that was loaded without Redis, and a write before Redis was back."""


@settings(max_examples=300)
@given(schedules)
@example(RACE)
@example(OWN_RACE)
@example(LATE_REPLY)
@example(HOLE)
@example(LATE_LOAD)
def test_nothing_older_than_delta_is_served(steps: list[Step]) -> None:
    """At every instant, what memory serves has all writes that Redis executed before Δ ago."""
    assert play(Replica(), steps).too_old == []


@settings(max_examples=300)
@given(schedules)
@example(RACE)
@example(OWN_RACE)
def test_no_key_is_stale_for_ever(steps: list[Step]) -> None:
    """Once everything has arrived, memory serves the last value or nothing, however long it waits."""
    world = play(Replica(), steps)
    world.settle()

    assert world.replica.serve(world.now_us) in {None, world.value}


class _NoTokens(Replica):
    """Stores whatever a fill brings."""

    def may_keep(self, token: FillToken, *, wrote: bool) -> bool:
        return True


class _HeardOnArrival(Replica):
    """Takes the time at which a reply arrived for that up to which all is heard."""

    def hear(self, sent_us: int, now_us: int) -> None:
        self.heard_us = now_us


class _NoEpochs(Replica):
    """Goes on with what it has after a lost connection."""

    def lose(self) -> None:
        pass


class _DeafToPushes(Replica):
    """Forgets that a read was under way when the key changed."""

    def take_push(self) -> None:
        self.memory = None


class _WriterRevokesNobody(Replica):
    """A write of its own lets older reads of its own store."""

    def may_keep(self, token: FillToken, *, wrote: bool) -> bool:
        return self.fills.settle(token, self.epoch, wrote=False)


class _PatientForEver(Replica):
    """Serves what it has, heard or not."""

    def serve(self, now_us: int) -> int | None:
        return None if self.memory is None else self.memory[0]


class _LoadsAreWatched(Replica):
    """Takes what it loaded without Redis for something that Redis watches."""

    def load(self, value: int, now_us: int) -> None:
        self.memory = (value, self.epoch + 1, now_us)


@pytest.mark.parametrize(
    ("replica", "steps"),
    [
        (_NoTokens(), RACE),
        (_DeafToPushes(), RACE),
        (_WriterRevokesNobody(), OWN_RACE),
        (_HeardOnArrival(), LATE_REPLY),
        (_NoEpochs(), HOLE),
        (_LoadsAreWatched(), LATE_LOAD),
        (_PatientForEver(), [*_READ, Step.FOREIGN_WRITE, *[Step.TICK] * 4]),
    ],
    ids=lambda each: type(each).__name__.strip("_"),
)
def test_the_bound_rejects_planted_bugs(replica: Replica, steps: list[Step]) -> None:
    """Each bug serves too old a value on its schedule."""
    assert play(replica, steps).too_old != []

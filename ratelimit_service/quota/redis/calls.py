"""What one node is asked in one round trip, and what comes back."""

from __future__ import annotations

import msgspec

from ratelimit_service.quota.redis.link import Argument, Reply

__all__ = ["Call", "Command", "RoundTrip", "Script", "ScriptCall"]


class Script(msgspec.Struct, frozen=True):
    """A Lua script.

    Attributes:
        name: For people.
        sha1: Hexadecimal digest of the source, by which it is called.
        source: Its text.
    """

    name: str
    sha1: str
    source: bytes


class ScriptCall(msgspec.Struct, frozen=True, gc=False):
    """One call of a script; in a cluster all keys are in one slot."""

    script: Script
    keys: tuple[bytes, ...]
    args: tuple[Argument, ...]

    def words(self) -> tuple[Argument, ...]:
        """The command as it is sent."""
        return ("EVALSHA", self.script.sha1, len(self.keys), *self.keys, *self.args)


class Command(msgspec.Struct, frozen=True, gc=False):
    """One plain command."""

    parts: tuple[Argument, ...]

    def words(self) -> tuple[Argument, ...]:
        """The command as it is sent."""
        return self.parts


Call = ScriptCall | Command


class RoundTrip(msgspec.Struct, frozen=True):
    """What a node answered.

    Attributes:
        replies: One per call; a call's own error is a `ScriptError`.
        boot: The boot key's value, read after the calls; None: gone, or not readable.
        same_memory: Every server that answered still has the memory that it had when this began: what it granted may be
            spent. False: the rules for a new master apply (DECISIONS 17).
    """

    replies: list[Reply]
    boot: bytes | None
    same_memory: bool

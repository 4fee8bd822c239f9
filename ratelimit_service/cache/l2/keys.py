"""How the cache's keys are called in Redis.

A value and its lease share a hash tag, so that one script may touch both in a cluster. A `}` in a key would end the
tag early, so it is written as `%7D` there, and `%` as `%25`; no two keys get one name.

    {prefix}c:v:{key}   value           {prefix}c:l:{key}   lease of the load under way
    {prefix}c:t:{tag}   a tag's version {prefix}c:prefixes  keys that were invalidated by prefix
    {prefix}c:d:{id}    a dictionary    {prefix}c:dictionary the one that is in use
"""

from __future__ import annotations

import enum

__all__ = ["KeyKind", "KeySpace"]


class KeyKind(enum.Enum):
    """What a key in Redis holds."""

    VALUE = enum.auto()
    LEASE = enum.auto()
    TAG = enum.auto()
    PREFIXES = enum.auto()
    FOREIGN = enum.auto()


class KeySpace:
    """Names of keys below one prefix.

    Attributes:
        channel: Where writers announce changed keys to those that cannot be told by tracking.
        prefixes: The key with what was invalidated by prefix.
        current_dictionary: The key with the dictionary that new payloads are packed with.
    """

    __slots__ = ("_dictionary", "_lease", "_probe", "_tag", "_value", "channel", "current_dictionary", "prefixes")

    def __init__(self, prefix: bytes) -> None:
        self._value = prefix + b"c:v:{"
        self._lease = prefix + b"c:l:{"
        self._tag = prefix + b"c:t:"
        self._probe = prefix + b"c:probe:{"
        self._dictionary = prefix + b"c:d:"
        self.current_dictionary = prefix + b"c:dictionary"
        self.prefixes = prefix + b"c:prefixes"
        self.channel = prefix + b"c:changes"

    def value(self, key: str) -> bytes:
        """The key of a value."""
        return self._value + _quoted(key) + b"}"

    def lease(self, key: str) -> bytes:
        """The key of the lease of a value's load."""
        return self._lease + _quoted(key) + b"}"

    def tag(self, tag: str) -> bytes:
        """The key of a tag's version."""
        return self._tag + tag.encode()

    def dictionary(self, dictionary_id: int) -> bytes:
        """The key of a dictionary."""
        return self._dictionary + b"%08x" % dictionary_id

    def probe(self, slot_tag: bytes, serial: str) -> bytes:
        """A key of no meaning, in the slot of `slot_tag`."""
        return self._probe + slot_tag + b"}" + serial.encode()

    def meaning(self, name: bytes) -> tuple[KeyKind, str]:
        """What a key in Redis holds, and the cache key or tag that it is about."""
        if name.startswith(self._value):
            return KeyKind.VALUE, _unquoted(name[len(self._value) : -1])
        if name.startswith(self._lease):
            return KeyKind.LEASE, _unquoted(name[len(self._lease) : -1])
        if name.startswith(self._tag):
            return KeyKind.TAG, name[len(self._tag) :].decode(errors="replace")
        return (KeyKind.PREFIXES if name == self.prefixes else KeyKind.FOREIGN), ""


def _quoted(key: str) -> bytes:
    name = key.encode()
    if b"%" in name or b"}" in name:
        name = name.replace(b"%", b"%25").replace(b"}", b"%7D")
    # An empty hash tag is none, and value and lease would part.
    return name or b"%"


def _unquoted(name: bytes) -> str:
    if name == b"%":
        return ""
    if b"%" in name:
        name = name.replace(b"%7D", b"}").replace(b"%25", b"%")
    return name.decode(errors="replace")

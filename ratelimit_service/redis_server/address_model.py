"""What an address of a Redis store says, as plain values. A secret never shows in a repr, a message or a log."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Final

import msgspec

__all__ = [
    "DEFAULT_COMMAND_US",
    "DEFAULT_CONNECT_US",
    "DEFAULT_POOL_SIZE",
    "Credentials",
    "Endpoint",
    "Layout",
    "RedisAddress",
    "Secret",
    "Tls",
]

DEFAULT_CONNECT_US: Final = 200_000
"""Time for a connection to be made, TLS and login included."""

DEFAULT_COMMAND_US: Final = 8_000
"""Time for one round trip, 2 ms below the 10 ms in which a request is answered (DECISIONS 29)."""

DEFAULT_POOL_SIZE: Final = 2
"""Connections per master: one carries the batch in flight, the other takes over at once when that one is given up."""


class Layout(enum.Enum):
    """How the Redis servers work together."""

    SINGLE = "redis"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


class Secret:
    """A text that shows as `***`, and is read by `reveal` where it is sent."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)


class Credentials(msgspec.Struct, frozen=True):
    """Who logs in. Files win over texts and are read at every connection, so that a rotated password needs no restart.

    Attributes:
        user: Empty: the default user.
        password: Empty: no login.
        user_file, password_file: Files whose text, without the white space around it, is the user and the password.
    """

    user: str = ""
    password: Secret = Secret("")
    user_file: Path | None = None
    password_file: Path | None = None

    def read(self) -> tuple[str, str]:
        """User and password, now.

        Raises:
            OSError: A file cannot be read.
        """
        user = self.user if self.user_file is None else _text(self.user_file)
        password = self.password.reveal() if self.password_file is None else _text(self.password_file)
        return user, password


class Tls(msgspec.Struct, frozen=True):
    """How the server's certificate is checked, and which one the client shows.

    Attributes:
        verify: False: any certificate is taken; the traffic is then hidden only from those who do not interfere.
        ca_file: Authorities that are trusted; None: the system's.
        cert_file, key_file: The client's certificate and its key.
        server_name: The name that the certificate must carry; empty: the host that is dialled.
    """

    verify: bool = True
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""


class Endpoint(msgspec.Struct, frozen=True):
    """A server's host, without brackets, and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is needed to reach a store.

    Attributes:
        layout: How the servers work together.
        endpoints: The server, the sentinels, or some members of the cluster.
        master_name: What the sentinels call the master.
        db: Number of the database; a cluster has only 0.
        credentials: Who logs in to the servers that count.
        sentinel_credentials: Who logs in to the sentinels.
        tls: None: none.
        key_prefix: Before every key, so that several releases share one Redis.
        pool_size: Connections per master.
        connect_us, command_us: Time for a connection, and for one round trip at the most.
    """

    layout: Layout
    endpoints: tuple[Endpoint, ...]
    master_name: str = ""
    db: int = 0
    credentials: Credentials = Credentials()
    sentinel_credentials: Credentials = Credentials()
    tls: Tls | None = None
    key_prefix: bytes = b""
    pool_size: int = DEFAULT_POOL_SIZE
    connect_us: int = DEFAULT_CONNECT_US
    command_us: int = DEFAULT_COMMAND_US

    def __str__(self) -> str:
        """The address as one may log it: no user, no password, no option."""
        scheme = self.layout.value if self.tls is None else self.layout.value.replace("redis", "rediss", 1)
        hosts = ",".join(str(endpoint) for endpoint in self.endpoints)
        master = f"/{self.master_name}" if self.master_name else ""
        db = f"/{self.db}" if self.db else ""
        return f"{scheme}://{hosts}{master}{db}"


def _text(path: Path) -> str:
    return path.read_text(errors="replace").strip()

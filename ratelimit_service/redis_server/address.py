"""Where Redis is and how it is reached: the value of `--store`, or of a profile's `store`.

```
redis://[user:password@]host[:port][/db][?option=value&…]
redis+sentinel://[user:password@]host[:port],host[:port]/MASTER[/db]
redis+cluster://[user:password@]host[:port],host[:port]
```

`rediss://`, `rediss+sentinel://` and `rediss+cluster://` speak TLS. User, password and master name are
percent-encoded. Options are listed in `OPTIONS`. A secret never shows in a repr, a message or a log.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import parse_qsl, unquote

from ratelimit_service.errors import TidegateError
from ratelimit_service.redis_server.address_model import (
    DEFAULT_COMMAND_US,
    DEFAULT_CONNECT_US,
    DEFAULT_POOL_SIZE,
    Credentials,
    Endpoint,
    Layout,
    RedisAddress,
    Secret,
    Tls,
)

__all__ = [
    "DEFAULT_COMMAND_US",
    "DEFAULT_CONNECT_US",
    "DEFAULT_POOL_SIZE",
    "OPTIONS",
    "Credentials",
    "Endpoint",
    "InvalidStoreAddress",
    "Layout",
    "RedisAddress",
    "Secret",
    "Tls",
    "parse_endpoint",
    "parse_store_url",
]

_MOST_POOL_SIZE: Final = 64
_MOST_DB: Final = 65_535
_MOST_PORT: Final = 65_535
_REDIS_PORT: Final = 6_379
_SENTINEL_PORT: Final = 26_379
_MOST_PREFIX_BYTES: Final = 64
_LEAST_TIMEOUT_US: Final = 1_000
_MOST_TIMEOUT_US: Final = 60_000_000

_URL: Final = re.compile(r"(?P<scheme>[A-Za-z0-9+.-]+)://(?P<rest>.*)\Z", re.DOTALL)
_HOST: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,252})?|\[[0-9A-Fa-f:.]{2,45}\])\Z")
_DURATION: Final = re.compile(r"([0-9]{1,9})(us|ms|s)\Z")
_T = TypeVar("_T")

_UNIT_US: Final[Mapping[str, int]] = {"us": 1, "ms": 1_000, "s": 1_000_000}


class InvalidStoreAddress(TidegateError):
    """A text is no address of a store.

    Attributes:
        problems: Everything that is wrong with it, secrets left out.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


OPTIONS: Final[Mapping[str, str]] = {
    "ca": "file with the authorities that are trusted",
    "cert": "file with the client's certificate",
    "key": "file with the key of the client's certificate",
    "skip_verify": "true: take any certificate",
    "server_name": "name that the server's certificate must carry",
    "password_file": "file with the password, read at every connection",
    "sentinel_user": "user at the sentinels",
    "sentinel_password": "password at the sentinels",
    "sentinel_password_file": "file with the password at the sentinels",
    "key_prefix": "before every key, at most 64 bytes",
    "pool_size": "connections per master, 1 to 64",
    "connect_timeout": "such as 200ms",
    "command_timeout": "such as 8ms",
}
"""What may stand after the `?`, and what it means."""

_TLS_ONLY: Final = ("ca", "cert", "key", "skip_verify", "server_name")
_SENTINEL_ONLY: Final = ("sentinel_user", "sentinel_password", "sentinel_password_file")


def parse_endpoint(text: str, default_port: int = _REDIS_PORT) -> Endpoint:
    """Read `host`, `host:port` or `[IPV6]:port`.

    Raises:
        ValueError: It is none; the message says what would be.
    """
    host, port = text, str(default_port)
    if not text.endswith("]") and ":" in text:
        host, _, port = text.rpartition(":")
    if _HOST.match(host) is None:
        raise ValueError(f"{text!r} is not HOST:PORT or [IPV6]:PORT")
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= _MOST_PORT):
        raise ValueError(f"{text!r} has no port from 1 to {_MOST_PORT}")
    return Endpoint(host.strip("[]"), int(port))


def parse_store_url(url: str) -> RedisAddress:
    """Read the address of a Redis store.

    Raises:
        InvalidStoreAddress: With all that is wrong.
    """
    return _Reading(url).conclude()


class _Reading:
    """One run of `parse_store_url`: what is understood so far, and what is wrong."""

    def __init__(self, url: str) -> None:
        self._problems: list[str] = []
        self._layout, self._tls_on = Layout.SINGLE, False
        match = _URL.match(url)
        if match is None:
            raise InvalidStoreAddress(["a store's address begins with redis://, rediss:// or one of their variants"])
        self._read_scheme(match["scheme"])
        rest, question, query = match["rest"].partition("?")
        authority, _, path = rest.partition("/")
        userinfo, _, hosts = authority.rpartition("@")
        if "@" in path + query + userinfo or "#" in match["rest"]:
            self._problems.append(
                "`/`, `?`, `#` and `@` in a user or password are percent-encoded (%2F, %3F, %23, %40)"
            )
            raise InvalidStoreAddress(self._problems)
        self._options = self._read_options(query) if question else {}
        user, _, password = userinfo.partition(":")
        self._user, self._password = unquote(user), unquote(password)
        self._endpoints = self._read_hosts(hosts)
        self._master_name, self._db = self._read_path([unquote(part) for part in path.split("/") if part])

    def conclude(self) -> RedisAddress:
        """Put the parts together."""
        address = RedisAddress(
            layout=self._layout,
            endpoints=self._endpoints,
            master_name=self._master_name,
            db=self._db,
            credentials=Credentials(self._user, Secret(self._password), password_file=self._file("password_file")),
            sentinel_credentials=Credentials(
                self._options.get("sentinel_user", ""),
                Secret(self._options.get("sentinel_password", "")),
                password_file=self._file("sentinel_password_file"),
            ),
            tls=self._read_tls(),
            key_prefix=self._read_prefix(),
            pool_size=self._option("pool_size", _read_pool_size, DEFAULT_POOL_SIZE),
            connect_us=self._option("connect_timeout", _read_duration_us, DEFAULT_CONNECT_US),
            command_us=self._option("command_timeout", _read_duration_us, DEFAULT_COMMAND_US),
        )
        self._check_together()
        if self._problems:
            raise InvalidStoreAddress(self._problems)
        return address

    def _read_scheme(self, scheme: str) -> None:
        self._tls_on = scheme.startswith("rediss")
        plain = scheme.replace("rediss", "redis", 1)
        for layout in Layout:
            if layout.value == plain:
                self._layout = layout
                return
        known = ", ".join(f"{layout.value.replace('redis', name, 1)}://" for layout in Layout for name in _SCHEMES)
        raise InvalidStoreAddress([f"{scheme}:// is no kind of store; known are {known}"])

    def _read_options(self, query: str) -> dict[str, str]:
        options: dict[str, str] = {}
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name not in OPTIONS:
                self._problems.append(f"unknown option {name!r}; known are {', '.join(OPTIONS)}")
            elif name in options:
                self._problems.append(f"option {name} is given twice")
            elif not value:
                self._problems.append(f"option {name} has no value")
            else:
                options[name] = value
        return options

    def _read_hosts(self, hosts: str) -> tuple[Endpoint, ...]:
        default_port = _SENTINEL_PORT if self._layout is Layout.SENTINEL else _REDIS_PORT
        endpoints: list[Endpoint] = []
        for text in hosts.split(",") if hosts else ():
            try:
                endpoints.append(parse_endpoint(text, default_port))
            except ValueError as error:
                self._problems.append(str(error))
        if not hosts:
            self._problems.append("no host is given")
        if self._layout is Layout.SINGLE and len(endpoints) > 1:
            self._problems.append("redis:// has one host; several go with redis+sentinel:// and redis+cluster://")
        return tuple(endpoints)

    def _read_path(self, parts: list[str]) -> tuple[str, int]:
        master_name = ""
        if self._layout is Layout.CLUSTER and parts:
            self._problems.append("a cluster has no database: nothing stands after its hosts")
            return "", 0
        if self._layout is Layout.SENTINEL:
            if not parts:
                self._problems.append("redis+sentinel:// needs the master's name: …/MASTER")
                return "", 0
            master_name = parts.pop(0)
        if len(parts) > 1:
            self._problems.append("only the number of a database stands at the end of the path")
        if not parts:
            return master_name, 0
        text = parts[0]
        if not (text.isascii() and text.isdigit() and int(text[:6]) <= _MOST_DB):
            self._problems.append(f"{text!r} is no database; it is a number from 0 to {_MOST_DB}")
            return master_name, 0
        return master_name, int(text)

    def _read_tls(self) -> Tls | None:
        if not self._tls_on:
            given = [name for name in _TLS_ONLY if name in self._options]
            if given:
                self._problems.append(f"{', '.join(given)} only with TLS: write rediss instead of redis")
            return None
        if ("cert" in self._options) != ("key" in self._options):
            self._problems.append("cert and key go together")
        return Tls(
            verify=not self._option("skip_verify", _read_switch, default=False),
            ca_file=self._file("ca"),
            cert_file=self._file("cert"),
            key_file=self._file("key"),
            server_name=self._options.get("server_name", ""),
        )

    def _read_prefix(self) -> bytes:
        prefix = self._options.get("key_prefix", "").encode()
        if len(prefix) > _MOST_PREFIX_BYTES:
            self._problems.append(f"key_prefix has at most {_MOST_PREFIX_BYTES} bytes")
        if b"{" in prefix:
            self._problems.append("key_prefix has no {: all keys would share one slot of a cluster")
        return prefix

    def _check_together(self) -> None:
        if self._user and not self._password and "password_file" not in self._options:
            self._problems.append("a user goes with a password: user:password@host, or password_file")
        if self._password and "password_file" in self._options:
            self._problems.append("a password is given twice, in the address and as password_file")
        if self._layout is not Layout.SENTINEL:
            given = [name for name in _SENTINEL_ONLY if name in self._options]
            if given:
                self._problems.append(f"{', '.join(given)} only with redis+sentinel://")

    def _option(self, name: str, read: Callable[[str], _T], default: _T) -> _T:
        text = self._options.get(name)
        if text is None:
            return default
        try:
            return read(text)
        except ValueError as error:
            self._problems.append(f"{name} {error}")
            return default

    def _file(self, name: str) -> Path | None:
        path = self._options.get(name)
        return None if path is None else Path(path)


_SCHEMES: Final = ("redis", "rediss")


def _read_pool_size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= _MOST_POOL_SIZE):
        raise ValueError(f"is a number from 1 to {_MOST_POOL_SIZE}")
    return int(text)


def _read_switch(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("is true or false")
    return text == "true"


def _read_duration_us(text: str) -> int:
    match = _DURATION.match(text)
    duration_us = int(match[1]) * _UNIT_US[match[2]] if match else 0
    if not _LEAST_TIMEOUT_US <= duration_us <= _MOST_TIMEOUT_US:
        raise ValueError("is a duration such as 8ms, from 1ms to 60s")
    return duration_us

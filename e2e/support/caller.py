"""An HTTP client that sends what it is told, bytes that are no UTF-8 included."""

from __future__ import annotations

import http.client
from collections.abc import Mapping

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """Status, headers (names in lower case) and body of one response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def get(
    address: tuple[str, int],
    path: str = "/",
    headers: Mapping[str, str | bytes] | None = None,
    *,
    method: str = "GET",
    source: str = "127.0.0.1",
    timeout_s: float = 10.0,
) -> Answer:
    """Send one request on a connection of its own, from the given loopback address."""
    connection = http.client.HTTPConnection(*address, timeout=timeout_s, source_address=(source, 0))
    try:
        connection.putrequest(method, path, skip_accept_encoding=True, skip_host="host" in (headers or {}))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def statuses(
    address: tuple[str, int], count: int, path: str = "/", headers: Mapping[str, str | bytes] | None = None
) -> list[int]:
    """Statuses of `count` equal requests, one after the other."""
    return [get(address, path, headers).status for _ in range(count)]

"""Ask the admin pages of a running service; what `tidegate counters` and `tidegate reset` do.

Blocking, over plain HTTP: the command line is the only caller.
"""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from ratelimit_service.addresses import Address
from ratelimit_service.errors import TidegateError

_MOST_BYTES: Final = 64 * 2**20
"""Longest answer that is read: a page is far smaller, and not every server is ours."""


class AdminUnreachable(TidegateError):
    """Nothing answered, or something that speaks no HTTP."""


class AdminRefused(TidegateError):
    """A page answered that it cannot.

    Attributes:
        status: HTTP status.
        message: The page's words.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


def ask_admin(
    address: Address, method: str, path: str, fields: list[tuple[str, bytes]], timeout_s: float
) -> tuple[int, bytes]:
    """Ask one page; return its status and body, whatever the status.

    Args:
        address: HOST:PORT of the admin pages.
        method: `GET` or `POST`.
        path: Of the page.
        fields: Of the query, in order; any bytes.
        timeout_s: For connecting, and for each read.

    Raises:
        AdminUnreachable: There was no answer.
    """
    target = f"{path}?{urlencode(fields, quote_via=quote)}"
    connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)
    try:
        connection.request(method, target, headers=_HEADERS)
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise AdminUnreachable(str(error) or type(error).__name__) from error
    finally:
        connection.close()


_HEADERS: Final[Mapping[str, str]] = {"Connection": "close"}


def body_of(answer: tuple[int, bytes], *good: int) -> bytes:
    """The body of an answer with one of the good statuses.

    Raises:
        AdminRefused: It has another one.
    """
    status, body = answer
    if status not in good:
        raise AdminRefused(status, body.decode("utf-8", "replace").strip())
    return body

"""Which responses a shared cache may keep, for how long, and for whom: RFC 9111 and RFC 9110 §13. Pure.

Headers are pairs of lower-case names and values, as ASGI has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

__all__ = [
    "Headers",
    "RequestWish",
    "StoredResponse",
    "directives",
    "etag_of",
    "fresh_s",
    "is_not_modified",
    "value_of",
    "varying",
    "wish_of",
]

Headers = Sequence[tuple[bytes, bytes]]

_KEPT_STATUSES: Final = frozenset({200, 203, 301, 308, 404, 410})
"""Those that RFC 9110 §15.1 lets be kept, without the partial ones."""

_LONGEST_S: Final = 365 * 86_400

NOT_MODIFIED_HEADERS: Final = frozenset({
    b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary", b"last-modified",
})  # fmt: skip
"""What a 304 repeats (RFC 9110 §15.4.5)."""


class StoredResponse(msgspec.Struct, frozen=True):
    """A response as it is kept.

    Attributes:
        status: Its status.
        headers: Names in lower case, and values.
        body: All of it.
        stored_s: Wall clock, seconds since 1970.
        age_s: How old it was then, by its own `Age`.
        fresh_s: How long it is fresh from `stored_s` on.
        vary: What the request had in each header that the response varies by; None: it had not.
        must_revalidate: It is never served once it is not fresh.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    stored_s: float
    age_s: int
    fresh_s: int
    vary: dict[str, str | None]
    must_revalidate: bool = False

    def suits(self, request: Headers) -> bool:
        """Whether it is an answer to a request with these headers."""
        return all(value_of(request, name.encode("latin-1")) == value for name, value in self.vary.items())

    def age_at(self, now_s: float) -> int:
        """Its age in whole seconds, at least 0."""
        return self.age_s + max(0, int(now_s - self.stored_s))

    def may_serve(self, now_s: float) -> bool:
        """Whether it may be served, fresh or (where that is not forbidden) stale."""
        return not self.must_revalidate or now_s < self.stored_s + self.fresh_s


class RequestWish(msgspec.Struct, frozen=True):
    """What a request says about caches.

    Attributes:
        reload: It wants a response made now.
        keep: Its response may be kept.
        max_age_s: It wants none that is older; None: any.
        only_if_cached: It wants none that has to be made.
    """

    reload: bool = False
    keep: bool = True
    max_age_s: int | None = None
    only_if_cached: bool = False


def value_of(headers: Headers, name: bytes) -> str | None:
    """The value of a header, several joined by commas as one list; None: it is not there."""
    values = [value.decode("latin-1").strip() for each, value in headers if each == name]
    return ", ".join(values) if values else None


def directives(headers: Headers) -> Mapping[str, str]:
    """`Cache-Control` by directive in lower case; one without a value is empty. The first of two counts."""
    found: dict[str, str] = {}
    for part in (value_of(headers, b"cache-control") or "").split(","):
        name, _, value = part.strip().partition("=")
        if name:
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def _seconds(text: str | None) -> int | None:
    """A delta in seconds; what is no number counts as 0, so that nothing is kept on a misunderstanding."""
    if text is None:
        return None
    return min(int(text), _LONGEST_S) if text.isascii() and text.isdigit() else 0


def wish_of(headers: Headers) -> RequestWish:
    """Read a request's `Cache-Control`, or its `Pragma` where there is none."""
    said = directives(headers)
    if not said:
        return RequestWish(reload="no-cache" in (value_of(headers, b"pragma") or "").lower())
    max_age_s = _seconds(said.get("max-age"))
    return RequestWish(
        reload="no-cache" in said or max_age_s == 0,
        keep="no-store" not in said,
        max_age_s=max_age_s,
        only_if_cached="only-if-cached" in said,
    )


def fresh_s(status: int, response: Headers, request: Headers, *, default_s: int) -> int:
    """For how many seconds a response may be kept for everybody; 0: it may not.

    Args:
        status: Of the response.
        response: Its headers.
        request: The request's.
        default_s: For a response that says nothing about it.
    """
    said = directives(response)
    names = {name for name, _ in response}
    if status not in _KEPT_STATUSES or said.keys() & {"no-store", "private", "no-cache"}:
        return 0
    if "*" in (value_of(response, b"vary") or "") or b"content-range" in names:
        return 0
    is_shared = bool(said.keys() & {"public", "s-maxage"})
    if any(name == b"authorization" for name, _ in request) and not (is_shared or "must-revalidate" in said):
        return 0
    if b"set-cookie" in names and not is_shared:
        # A cookie made for one client must not reach another.
        return 0
    for name in ("s-maxage", "max-age"):
        seconds = _seconds(said.get(name))
        if seconds is not None:
            return max(0, seconds - _age_s(response))
    expires = value_of(response, b"expires")
    if expires is not None:
        return _until_s(expires, value_of(response, b"date"))
    return default_s


def _age_s(response: Headers) -> int:
    return _seconds(value_of(response, b"age")) or 0


def _until_s(expires: str, date: str | None) -> int:
    """From `Date` to `Expires`; a date that is none is past (RFC 9111 §5.3)."""
    if date is None:
        return 0
    try:
        span = parsedate_to_datetime(expires) - parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return 0
    return min(_LONGEST_S, max(0, int(span.total_seconds())))


def varying(response: Headers, request: Headers) -> dict[str, str | None]:
    """What a request has in each header that its response varies by."""
    names = sorted({name.strip().lower() for name in (value_of(response, b"vary") or "").split(",") if name.strip()})
    return {name: value_of(request, name.encode("latin-1")) for name in names}


def etag_of(body: bytes) -> bytes:
    """A validator for a response that has none: weak, since what encodes it later changes its bytes."""
    return b'W/"%s"' % hashlib.blake2b(body, digest_size=12).hexdigest().encode()


def is_not_modified(request: Headers, response: Headers) -> bool:
    """Whether what the client has is still right (RFC 9110 §13.2.2): `If-None-Match`, else `If-Modified-Since`."""
    wanted = value_of(request, b"if-none-match")
    if wanted is not None:
        have = value_of(response, b"etag")
        return have is not None and (wanted.strip() == "*" or _opaque(have) in map(_opaque, _tags(wanted)))
    since, modified = value_of(request, b"if-modified-since"), value_of(response, b"last-modified")
    if since is None or modified is None:
        return False
    try:
        return parsedate_to_datetime(modified) <= parsedate_to_datetime(since)
    except (ValueError, TypeError):
        return False


def _tags(text: str) -> Iterable[str]:
    """The tags of a list; a comma may stand within the quotes of one."""
    parts, inside, at = [], False, 0
    for place, char in enumerate(text):
        inside ^= char == '"'
        if char == "," and not inside:
            parts.append(text[at:place])
            at = place + 1
    return [part.strip() for part in (*parts, text[at:])]


def _opaque(tag: str) -> str:
    """For the weak comparison."""
    return tag.removeprefix("W/")

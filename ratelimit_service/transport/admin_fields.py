"""What the admin pages read out of a request, and what they answer to one that cannot be read."""

from __future__ import annotations

from typing import Final

from ratelimit_service.transport.admin_routes import Page, Query, refusal
from ratelimit_service.wire.rls.messages import Descriptor, Request
from ratelimit_service.wire.rls.protojson import MalformedJson, decode_request_json

NO_CONFIGURATION: Final = refusal(503, "no configuration is in force")
"""The answer of pages that show policies, before there are any."""

_UINT32_MAX: Final = 2**32 - 1


def bad_request(error: MalformedJson) -> Page:
    """400 with what is wrong."""
    # A lone surrogate in a field's name would not encode.
    return refusal(400, str(error).encode("utf-8", "backslashreplace").decode())


def one_field(query: Query, name: str, default: bytes | None) -> bytes:
    """The only value of a field; `default` None: it must be there.

    Raises:
        MalformedJson: It is there twice, or missing.
    """
    values = [value for field, value in query.fields if field == name]
    if len(values) > 1:
        raise MalformedJson(f"{name}: given twice")
    if values and values[0]:
        return values[0]
    if default is None:
        raise MalformedJson(f"{name}: missing")
    return default


def whole_field(query: Query, name: str, high: int, default: int = 0) -> int:
    """The whole number of a field, 0 to `high`.

    Raises:
        MalformedJson: It is something else.
    """
    text = one_field(query, name, b"%d" % default)
    if not text.isdigit() or len(text) > 10 or int(text) > high:
        raise MalformedJson(f"{name}: not a whole number from 0 to {high}")
    return int(text)


def request_of(query: Query) -> Request:
    """The request that a page is asked about: a body as `/json` takes it, else one descriptor in the fields.

    Raises:
        MalformedJson: It cannot be read.
    """
    return decode_request_json(query.body) if query.body else request_of_fields(query)


def request_of_fields(query: Query) -> Request:
    """`?domain=D&entry=k=v&entry=…&hits=N`; percent escapes carry any bytes.

    Raises:
        MalformedJson: Something is missing, there twice, or out of range.
    """
    pairs = [value.partition(b"=") for field, value in query.fields if field == "entry"]
    if not pairs:
        raise MalformedJson("entry: missing, write entry=KEY=VALUE")
    entries = tuple((key, value) for key, _, value in pairs)
    hits = whole_field(query, "hits", _UINT32_MAX)
    domain = one_field(query, "domain", None)
    return Request(domain=domain, descriptors=(Descriptor(entries=entries),), hits_addend=hits)

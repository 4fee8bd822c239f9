"""Envoy's rate-limit request and response as JSON, for `/json` and `/explain`.

Source: https://protobuf.dev/programming-guides/json/. Written by hand because the service carries no protobuf
library; tests hold it against protobuf's own `json_format`.
Reading is as strict as upstream's: unknown fields, doubled fields and numbers out of range are errors.
JSON carries no bytes: keys and values are sent as their UTF-8, and bytes that are none cannot be sent this way.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from ratelimit_service.errors import TidegateError
from ratelimit_service.wire.rls.messages import Descriptor, Override, Request, Status, Unit, Verdict

_UINT32_MAX: Final = 2**32 - 1
_UINT64_MAX: Final = 2**64 - 1
_INT32_RANGE: Final = (-(2**31), 2**31 - 1)
_EXACT_FLOAT: Final = 2**53
_DURATION_MAX_S: Final = 315_576_000_000
"""Greatest `google.protobuf.Duration`: about 10,000 years."""
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_UNITS: Final = {unit.name: int(unit) for unit in Unit if unit is not Unit.WEEK}
"""Names of `envoy.type.v3.RateLimitUnit`, which knows no week."""

_Object = dict[str, object]


class MalformedJson(TidegateError):
    """Text that is no protojson `RateLimitRequest`; the message names the field. The only error of this module."""


def decode_request_json(body: bytes) -> Request:
    """Read a request; field names in both spellings (`hitsAddend`, `hits_addend`).

    Raises:
        MalformedJson: It is no JSON, or none that describes a request.
    """
    try:
        parsed = json.loads(body.decode("utf-8"), object_pairs_hook=_no_doubles, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise MalformedJson(f"byte {error.start} is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise MalformedJson(f"no JSON: {error.msg} at character {error.pos}") from None
    except ValueError:
        raise MalformedJson("no JSON: a number of too many digits") from None
    except RecursionError:
        raise MalformedJson("no JSON: nested too deeply") from None
    fields = _fields(parsed, "", {"domain": "domain", "descriptors": "descriptors", "hitsAddend": "hits_addend"})
    return Request(
        domain=_text(fields.get("domain"), "domain"),
        descriptors=tuple(
            _descriptor(item, f"descriptors[{index}]")
            for index, item in enumerate(_list(fields.get("descriptors"), "descriptors"))
        ),
        hits_addend=_integer(fields.get("hitsAddend"), "hitsAddend", 0, _UINT32_MAX),
    )


def _descriptor(value: object, path: str) -> Descriptor:
    names = {"entries": "entries", "limit": "limit", "hitsAddend": "hits_addend", "isNegativeHits": "is_negative_hits"}
    fields = _fields(value, path, names)
    limit, hits, negative = fields.get("limit"), fields.get("hitsAddend"), fields.get("isNegativeHits")
    if negative is not None and not isinstance(negative, bool):
        raise MalformedJson(f"{path}.isNegativeHits: neither true nor false")
    return Descriptor(
        entries=tuple(
            _entry(item, f"{path}.entries[{index}]")
            for index, item in enumerate(_list(fields.get("entries"), f"{path}.entries"))
        ),
        override=None if limit is None else _override(limit, f"{path}.limit"),
        hits=None if hits is None else _integer(hits, f"{path}.hitsAddend", 0, _UINT64_MAX),
        is_negative=bool(negative),
    )


def _entry(value: object, path: str) -> tuple[bytes, bytes]:
    fields = _fields(value, path, {"key": "key", "value": "value"})
    return _text(fields.get("key"), f"{path}.key"), _text(fields.get("value"), f"{path}.value")


def _override(value: object, path: str) -> Override:
    fields = _fields(value, path, {"requestsPerUnit": "requests_per_unit", "unit": "unit"})
    unit = fields.get("unit")
    named = _UNITS.get(unit) if isinstance(unit, str) else None
    if isinstance(unit, str) and named is None and _NUMBER.fullmatch(unit) is None:
        raise MalformedJson(f"{path}.unit: none of {', '.join(_UNITS)}")
    return Override(
        requests=_integer(fields.get("requestsPerUnit"), f"{path}.requestsPerUnit", 0, _UINT32_MAX),
        unit=_integer(unit, f"{path}.unit", *_INT32_RANGE) if named is None else named,
    )


def _no_doubles(pairs: list[tuple[str, object]]) -> _Object:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise MalformedJson(f"field {doubled!r} twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise MalformedJson(f"no JSON: {name}")


def _fields(value: object, path: str, names: Mapping[str, str]) -> _Object:
    """An object's fields by their JSON names; `names` maps those to the names of the .proto file."""
    at = path or "request"
    if not isinstance(value, dict):
        raise MalformedJson(f"{at}: not an object")
    json_names = {name: json_name for json_name, proto_name in names.items() for name in (json_name, proto_name)}
    found: _Object = {}
    for name, content in value.items():
        json_name = json_names.get(name)
        if json_name is None:
            raise MalformedJson(f"{at}: no field {name!r}; it has {', '.join(names)}")
        if json_name in found:
            raise MalformedJson(f"{at}: {json_name} in both spellings")
        found[json_name] = content
    return found


def _list(value: object, path: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedJson(f"{path}: not a list")
    return value


def _text(value: object, path: str) -> bytes:
    if value is None:
        return b""
    if not isinstance(value, str):
        raise MalformedJson(f"{path}: not a string")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedJson(f"{path}: an unpaired surrogate") from None


def _integer(value: object, path: str, low: int, high: int) -> int:
    """A number, or a string that holds one; `1.0` and `1e2` are whole numbers too."""
    number: object = value
    if value is None:
        number = 0
    elif isinstance(value, str) and (found := _NUMBER.fullmatch(value)) is not None:
        number = float(value) if found[1] or found[2] else int(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise MalformedJson(f"{path}: not a whole number from {low} to {high}")
    return number


def encode_verdict_json(verdict: Verdict) -> bytes:
    """A `RateLimitResponse` as upstream's `/json` writes it: lowerCamelCase, defaults left out, one line of UTF-8.

    Text that UTF-8 cannot carry (lone surrogates) shows U+FFFD in its place.
    """
    answer: _Object = {"overallCode": _code(verdict.over)}
    if verdict.statuses:
        answer["statuses"] = [_status(status) for status in verdict.statuses]
    if verdict.headers:
        answer["responseHeadersToAdd"] = [_header(key, value) for key, value in verdict.headers]
    if verdict.metadata is not None:
        answer["dynamicMetadata"] = _struct(verdict.metadata)
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def _code(over: bool) -> str:
    return "OVER_LIMIT" if over else "OK"


def _status(status: Status) -> _Object:
    found: _Object = {"code": _code(status.over)}
    if status.limit is not None:
        limit: _Object = {}
        if status.limit.name:
            limit["name"] = _sendable(status.limit.name)
        if status.limit.requests:
            limit["requestsPerUnit"] = min(status.limit.requests, _UINT32_MAX)
        if status.limit.unit:
            limit["unit"] = status.limit.unit.name
        found["currentLimit"] = limit
    if status.remaining:
        found["limitRemaining"] = min(status.remaining, _UINT32_MAX)
    if status.reset_s is not None:
        found["durationUntilReset"] = f"{min(status.reset_s, _DURATION_MAX_S)}s"
    return found


def _header(key: str, value: str) -> _Object:
    return {name: _sendable(text) for name, text in (("key", key), ("value", value)) if text}


def _struct(value: Mapping[str, object]) -> _Object:
    return {_sendable(name): _json_value(content) for name, content in value.items()}


def _json_value(value: object) -> object:
    """A `google.protobuf.Value`: numbers are doubles, and JSON has no infinities (null)."""
    encode = _VALUE_ENCODERS.get(type(value))
    return encode(value) if encode is not None else _sendable(str(value))


def _number(value: float) -> object:
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < _EXACT_FLOAT else number


def _sendable(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if not text.isascii() else text


_VALUE_ENCODERS: Final[dict[type, Callable[..., object]]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: _number,
    float: _number,
    str: _sendable,
    dict: _struct,
    list: lambda value: [_json_value(item) for item in value],
    tuple: lambda value: [_json_value(item) for item in value],
}

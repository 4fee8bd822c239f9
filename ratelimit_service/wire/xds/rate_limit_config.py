"""envoyproxy/ratelimit's own resource, `RateLimitConfig` (`rls_conf.proto`), as the values that its YAML has.

The decoder gives what a YAML file with the same meaning would hold, so that one loader judges both; a field at its
default is left out, as nobody would write it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from ratelimit_service.wire.protobuf import MAX_DEPTH, MalformedMessage, read_fields, write_bytes
from ratelimit_service.wire.xds.text import read_data, read_number, read_text, tag, write_number, write_text

RATE_LIMIT_CONFIG_TYPE: Final = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig"
"""Type URL of the resource."""

UNITS: Final = ("unknown", "second", "minute", "hour", "day", "month", "year", "week")
"""`RateLimitUnit` by number, as YAML writes it."""

Plain = Mapping[str, object]
"""A mapping of a YAML document."""

_SWITCHES: Final = {5: "shadow_mode", 6: "detailed_metric", 7: "quota_mode"}


def encode_config(name: str, config: Plain) -> bytes:
    """A `RateLimitConfig` of what a YAML document says; `name` is the resource's.

    Args:
        name: Unique among the resources.
        config: Valid values of envoyproxy/ratelimit's YAML; what the message has no field for is left out.
    """
    head = write_text(1, name) + write_text(2, cast("str", config["domain"]))
    return head + _encode_descriptors(3, config)


def decode_config(body: bytes) -> tuple[str, Plain]:
    """(Name of the resource, values of its YAML).

    Raises:
        MalformedMessage: `body` is no such message, or its descriptors are nested deeper than protobuf allows.
    """
    name, domain = "", ""
    descriptors: list[Plain] = []
    for field in read_fields(body):
        if field.number == 1:
            name = read_text(field)
        elif field.number == 2:
            domain = read_text(field)
        elif field.number == 3:
            descriptors.append(_decode_descriptor(read_data(field), MAX_DEPTH))
    return name, {"domain": domain, "descriptors": descriptors}


def _encode_descriptors(number: int, holder: Plain) -> bytes:
    descriptors = cast("Sequence[Plain]", holder.get("descriptors", ()))
    return b"".join(write_bytes(tag(number), _encode_descriptor(each)) for each in descriptors)


def _encode_descriptor(descriptor: Plain) -> bytes:
    head = write_text(1, cast("str", descriptor["key"])) + write_text(2, cast("str", descriptor.get("value", "")))
    limit = descriptor.get("rate_limit")
    body = b"" if limit is None else write_bytes(tag(3), _encode_limit(cast("Plain", limit)))
    switches = b"".join(write_number(number, bool(descriptor.get(name))) for number, name in _SWITCHES.items())
    return head + body + _encode_descriptors(4, descriptor) + switches


def _encode_limit(limit: Plain) -> bytes:
    unit = UNITS.index(cast("str", limit.get("unit", "unknown")).lower())
    head = write_number(1, unit) + write_number(2, cast("int", limit.get("requests_per_unit", 0)))
    head += write_number(3, bool(limit.get("unlimited"))) + write_text(4, cast("str", limit.get("name", "")))
    replaced = cast("Sequence[Plain]", limit.get("replaces", ()))
    return head + b"".join(write_bytes(tag(5), write_text(1, cast("str", each["name"]))) for each in replaced)


def _decode_descriptor(body: bytes, depth: int) -> Plain:
    if depth == 0:
        raise MalformedMessage(0, "descriptors nested too deep")
    found: dict[str, object] = {}
    below: list[Plain] = []
    for field in read_fields(body):
        if field.number == 1:
            found["key"] = read_text(field)
        elif field.number == 2:
            found["value"] = read_text(field)
        elif field.number == 3:
            found["rate_limit"] = _decode_limit(read_data(field))
        elif field.number == 4:
            below.append(_decode_descriptor(read_data(field), depth - 1))
        elif field.number in _SWITCHES:
            found[_SWITCHES[field.number]] = bool(read_number(field))
    if below:
        found["descriptors"] = below
    return found


def _decode_limit(body: bytes) -> Plain:
    found: dict[str, object] = {}
    replaces: list[Plain] = []
    for field in read_fields(body):
        if field.number == 1:
            number = read_number(field)
            # A unit of a later version keeps its number, so that the loader's refusal names it.
            found["unit"] = UNITS[number] if number < len(UNITS) else str(number)
        elif field.number == 2:
            found["requests_per_unit"] = read_number(field) & 0xFFFF_FFFF
        elif field.number == 3:
            found["unlimited"] = bool(read_number(field))
        elif field.number == 4:
            found["name"] = read_text(field)
        elif field.number == 5:
            replaces.append({"name": _decode_replace(read_data(field))})
    if replaces:
        found["replaces"] = replaces
    if found.get("unlimited"):
        # Upstream's YAML says no unit beside `unlimited`, and its loader refuses one.
        found.pop("unit", None)
    return found


def _decode_replace(body: bytes) -> str:
    name = ""
    for field in read_fields(body):
        if field.number == 1:
            name = read_text(field)
    return name

"""Requests and verdicts as JSON: the exact text, and the exact complaint."""

from __future__ import annotations

import json

import pytest

from ratelimit_service.wire.rls.messages import CurrentLimit, Descriptor, Override, Request, Status, Unit, Verdict
from ratelimit_service.wire.rls.protojson import MalformedJson, decode_request_json, encode_verdict_json


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("{}", Request(b"", ())),
        ('{"domain":null,"descriptors":null,"hitsAddend":null}', Request(b"", ())),
        ('{"domain":"d","hits_addend":"3"}', Request(b"d", (), 3)),
        ('{"hitsAddend":1e2}', Request(b"", (), 100)),
        ('{"hitsAddend":"1.0"}', Request(b"", (), 1)),
        ('{"hitsAddend":4294967295}', Request(b"", (), 2**32 - 1)),
        ('{"descriptors":[{}]}', Request(b"", (Descriptor(()),))),
        (
            '{"descriptors":[{"entries":[{"key":"é","value":"v"},{}],"hits_addend":"18446744073709551615"}]}',
            Request(b"", (Descriptor((("é".encode(), b"v"), (b"", b"")), hits=2**64 - 1),)),
        ),
        (
            '{"descriptors":[{"limit":{"requestsPerUnit":5,"unit":"DAY"},"hitsAddend":0,"isNegativeHits":true}]}',
            Request(b"", (Descriptor((), Override(5, 4), 0, is_negative=True),)),
        ),
        ('{"descriptors":[{"limit":{"unit":99}}]}', Request(b"", (Descriptor((), Override(0, 99)),))),
        ('{"descriptors":[{"limit":{"unit":"2"}}]}', Request(b"", (Descriptor((), Override(0, 2)),))),
        ('{"descriptors":[{"limit":null,"is_negative_hits":false}]}', Request(b"", (Descriptor(()),))),
    ],
)
def test_a_request_is_read(body, expected):
    """Both spellings, numbers as text, null as unset."""
    assert decode_request_json(body.encode()) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff", "byte 0 is no UTF-8"),
        (b"{", "no JSON: Expecting property name enclosed in double quotes at character 1"),
        (b"[" * 100_000, "no JSON: nested too deeply"),
        (b"1" * 5_000, "no JSON: a number of too many digits"),
        (b'{"hitsAddend":NaN}', "no JSON: NaN"),
        (b'{"a":1,"a":1}', "field 'a' twice in one object"),
        (b"[]", "request: not an object"),
        (b'{"x":1}', "request: no field 'x'; it has domain, descriptors, hitsAddend"),
        (b'{"hitsAddend":1,"hits_addend":1}', "request: hitsAddend in both spellings"),
        (b'{"domain":1}', "domain: not a string"),
        (b'{"domain":"\\ud800"}', "domain: an unpaired surrogate"),
        (b'{"descriptors":{}}', "descriptors: not a list"),
        (b'{"descriptors":[null]}', "descriptors[0]: not an object"),
        (b'{"descriptors":[{"entries":[{"value":2}]}]}', "descriptors[0].entries[0].value: not a string"),
        (b'{"descriptors":[{"isNegativeHits":1}]}', "descriptors[0].isNegativeHits: neither true nor false"),
        (
            b'{"descriptors":[{"limit":{"unit":"WEEK"}}]}',
            "descriptors[0].limit.unit: none of UNKNOWN, SECOND, MINUTE, HOUR, DAY, MONTH, YEAR",
        ),
        (
            b'{"descriptors":[{"limit":{"unit":2147483648}}]}',
            "descriptors[0].limit.unit: not a whole number from -2147483648 to 2147483647",
        ),
        *(
            (b'{"hitsAddend":%b}' % value, "hitsAddend: not a whole number from 0 to 4294967295")
            for value in (b"-1", b"4294967296", b"true", b"1.5", b"1e999", b'"x"', b'" 1"', b'"1e999"', b"[]")
        ),
    ],
)
def test_what_is_no_request_is_named(body, message):
    """The one error, with the field."""
    with pytest.raises(MalformedJson) as caught:
        decode_request_json(body)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (Verdict(over=False, statuses=()), {"overallCode": "OK"}),
        (
            Verdict(
                over=True,
                statuses=(
                    Status(over=True, limit=CurrentLimit(5, Unit.WEEK, "n\udcff"), reset_s=0),
                    Status(over=False, limit=CurrentLimit(0, Unit.UNKNOWN), remaining=2**40, reset_s=10**12),
                    Status(over=False, limit=CurrentLimit(2**40, Unit.SECOND)),
                ),
                headers=(("RateLimit-Limit", "5"), ("x", "")),
            ),
            {
                "overallCode": "OVER_LIMIT",
                "statuses": [
                    {
                        "code": "OVER_LIMIT",
                        "currentLimit": {"name": "n\ufffd\ufffd\ufffd", "requestsPerUnit": 5, "unit": "WEEK"},
                        "durationUntilReset": "0s",
                    },
                    {
                        "code": "OK",
                        "currentLimit": {},
                        "limitRemaining": 2**32 - 1,
                        "durationUntilReset": "315576000000s",
                    },
                    {"code": "OK", "currentLimit": {"requestsPerUnit": 2**32 - 1, "unit": "SECOND"}},
                ],
                "responseHeadersToAdd": [{"key": "RateLimit-Limit", "value": "5"}, {"key": "x"}],
            },
        ),
        (Verdict(over=False, statuses=(), metadata={}), {"overallCode": "OK", "dynamicMetadata": {}}),
        (
            Verdict(
                over=False,
                statuses=(),
                metadata={
                    "n": None, "b": True, "i": 5, "big": 2**60, "huge": 10**400, "f": 0.5, "whole": 2.0,
                    "nan": float("nan"), "s": "é", "l": [1, "a"], "t": ({"x": 1},), "other": Unit.DAY,
                },
            ),
            {
                "overallCode": "OK",
                "dynamicMetadata": {
                    "n": None, "b": True, "i": 5, "big": float(2**60), "huge": None, "f": 0.5, "whole": 2,
                    "nan": None, "s": "é", "l": [1, "a"], "t": [{"x": 1}], "other": "4",
                },
            },
        ),
    ],
)  # fmt: skip
def test_a_verdict_is_written_as_upstream_writes_it(verdict, expected):
    """Defaults are left out, numbers saturate, what JSON has no form for is null or U+FFFD."""
    assert json.loads(encode_verdict_json(verdict)) == expected


def test_the_text_is_one_line():
    """Compact, so that a log can hold it."""
    verdict = Verdict(over=False, statuses=(Status(over=False, remaining=1),))

    assert encode_verdict_json(verdict) == b'{"overallCode":"OK","statuses":[{"code":"OK","limitRemaining":1}]}'

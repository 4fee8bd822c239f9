"""The conformance suite: what envoyproxy/ratelimit is known to answer, by section of its reference.

The vectors are data (`vectors/`); each runs in every mode that it is true in, over a store that answers at once and
over one that always answers later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format

from ratelimit_service.policy.compile import refuses
from ratelimit_service.wire.rls.client import decode_response, encode_request
from ratelimit_service.wire.rls.messages import Descriptor, Request, Unit
from support.limiters import LimiterHarness, descriptor, settings_of, texts_of
from support.snapshots import problems_of, snapshot_of

VECTORS = Path(__file__).parent / "vectors"
MODES = ("default", "compat")


def _vectors() -> Iterator[Any]:
    for vector in yaml.safe_load((VECTORS / "envoy_ratelimit.yaml").read_text()):
        for mode in vector.get("modes", MODES):
            for store in ("at once", "later"):
                yield pytest.param(vector, mode, store == "later", id=f"{vector['id']}-{mode}-{store}")


def _load_errors() -> Iterator[Any]:
    for vector in yaml.safe_load((VECTORS / "envoy_ratelimit_load_errors.yaml").read_text()):
        yield pytest.param(vector["files"], vector["says"], id=f"2.3 {vector['id']}")


def _asked(step: Mapping[str, Any]) -> Request:
    descriptors = tuple(_descriptor(each) for each in step["ask"])
    return Request(step.get("domain", "domain").encode(), descriptors, step.get("hits", 0))


def _descriptor(written: Sequence[str] | Mapping[str, Any]) -> Descriptor:
    fields: Mapping[str, Any] = written if isinstance(written, Mapping) else {"entries": written}
    requests, unit = fields.get("limit", (0, "UNKNOWN"))
    limit = (requests, Unit[unit]) if "limit" in fields else None
    return descriptor(*fields["entries"], hits=fields.get("hits"), negative=fields.get("negative", False), limit=limit)


def _metadata(body: bytes) -> dict[str, Any] | None:
    """`dynamic_metadata` as upb reads it."""
    response = rls_pb2.RateLimitResponse.FromString(body)
    return json_format.MessageToDict(response.dynamic_metadata) if response.HasField("dynamic_metadata") else None


def _check(harness: LimiterHarness, step: Mapping[str, Any]) -> None:
    """Ask, and compare what the vector names."""
    body = harness.decide(encode_request(_asked(step)))
    assert isinstance(body, bytes)
    verdict = decode_response(body)
    answered: dict[str, object] = {
        "code": "OVER_LIMIT" if verdict.over else "OK",
        "statuses": texts_of(verdict),
        "headers": dict(verdict.headers),
        "metadata": _metadata(body),
        "unknown_domains": harness.table.unknown_domains,
        "counters": {rule: harness.counters(rule, "domain") for rule in step.get("counters", ())},
        "keys": sorted(each.key.decode() for each in harness.usage("domain")),
    }
    wanted = {name: step[name] for name in answered if name in step}

    assert {name: answered[name] for name in wanted} == wanted
    assert len(verdict.statuses) == len(step["ask"])


@pytest.mark.parametrize(("vector", "mode", "deferred"), list(_vectors()))
def test_the_answer_is_the_vectors(vector: Mapping[str, Any], mode: str, deferred: bool) -> None:
    """Codes, statuses, headers, metadata, keys and counters are as written, step by step."""
    harness = LimiterHarness(
        snapshot_of(yaml.safe_dump(vector["config"])),
        settings_of(**vector.get("settings", {}), compat=mode == "compat"),
        deferred=deferred,
        start_us=vector["now"] * 1_000_000,
        prefix=vector.get("prefix", "").encode(),
    )
    for step in vector["steps"]:
        if mode in step.get("modes", MODES):
            _check(harness, step)


@pytest.mark.parametrize(("files", "says"), list(_load_errors()))
def test_a_bad_set_is_refused_whole(files: Sequence[object], says: str) -> None:
    """Each load error is told, with the field that it is about."""
    _, problems = problems_of(*(yaml.safe_dump(file) for file in files))

    assert refuses(problems)
    assert any(says in str(problem) for problem in problems), problems


def test_2_3_domains_merge_when_asked_to() -> None:
    """`MERGE_DOMAIN_CONFIG`: the same set is good."""
    files = ("domain: d\ndescriptors: [{key: a}]", "domain: d\ndescriptors: [{key: b}]")
    _, problems = problems_of(*files, merge=True)

    assert problems == []

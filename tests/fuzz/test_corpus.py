"""The kept corpus of the fuzzer as plain tests: what was reached or found once stays right on every interpreter."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from fuzz import payload_targets, run, targets
from fuzz.run import KEPT, MOST_INPUT_BYTES, Figures, read_figures
from fuzz.targets import TARGETS

from ratelimit_service.cache import envelope
from ratelimit_service.cache.l3 import record
from ratelimit_service.wire.grpc.calls import read_message
from ratelimit_service.wire.grpc.status import GrpcError
from ratelimit_service.wire.http2.connection import Connection
from ratelimit_service.wire.http2.events import Event
from ratelimit_service.wire.http2.hpack import Decoder, Field
from ratelimit_service.wire.rls.decode import decode_request
from ratelimit_service.wire.rls.messages import Request

CORPUS = {name: {each.name: each.read_bytes() for each in sorted((KEPT / name).iterdir())} for name in TARGETS}


def _replay(name: str) -> None:
    for data in CORPUS[name].values():
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus_of_each_target_passes(name: str) -> None:
    """No input makes the code and its oracle part."""
    _replay(name)


def test_the_kept_corpus_stays_small() -> None:
    """Every target has inputs, all together they are few."""
    files = [data for each in CORPUS.values() for data in each.values()]

    assert set(TARGETS) == set(run.TARGETS)
    assert all(CORPUS.values())
    assert len(files) <= 200
    assert sum(map(len, files)) <= 200_000
    assert max(map(len, files)) <= MOST_INPUT_BYTES


class _LosesTheLastField(Decoder):
    """A planted bug: a field is dropped."""

    def decode(self, block: bytes) -> list[Field]:
        return super().decode(block)[:-1]


class _LosesTheEnd(Connection):
    """A planted bug: the last byte of a long read is kept back."""

    def receive(self, data: bytes, now_us: int) -> list[Event]:
        return super().receive(data[:64], now_us)


def _without_last_descriptor(body: bytes) -> Request:
    request = decode_request(body)
    return Request(request.domain, request.descriptors[:-1], request.hits_addend)


def _of_any_size(body: bytes, *, compressed: bool, most_bytes: int) -> bytes | GrpcError:
    return read_message(body, compressed=compressed, most_bytes=10 * most_bytes)


@pytest.mark.parametrize(
    ("name", "part", "mutant"),
    [
        ("hpack", "Decoder", _LosesTheLastField),
        ("connection", "Connection", _LosesTheEnd),
        ("rls", "decode_request", _without_last_descriptor),
    ],
)
def test_the_corpus_finds_planted_bugs(monkeypatch: pytest.MonkeyPatch, name: str, part: str, mutant: object) -> None:
    """A lost field, lost bytes and a lost descriptor are seen by the oracles."""
    monkeypatch.setattr(targets, part, mutant)

    with pytest.raises(AssertionError):
        _replay(name)


def test_the_corpus_finds_a_cap_that_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message ten times as long as allowed, packed too."""
    monkeypatch.setattr(targets.calls, "read_message", _of_any_size)

    with pytest.raises(AssertionError):
        _replay("grpc")


def _without_its_last_tag(data: bytes, *, max_unpacked_bytes: int) -> envelope.Envelope:
    found = envelope.unpack(data, max_unpacked_bytes=max_unpacked_bytes)
    return msgspec.structs.replace(found, tags=found.tags[:-1])


def _with_a_shorter_payload(name: bytes, data: bytes, keys: record.KeyRing | None) -> record.Record:
    found = record.read_record(name, data, keys)
    return msgspec.structs.replace(found, payload=found.payload[:-1])


@pytest.mark.parametrize(
    ("name", "part", "mutant"),
    [
        ("envelope", "envelope", SimpleNamespace(pack=envelope.pack, unpack=_without_its_last_tag)),
        ("record", "record", SimpleNamespace(**{**vars(record), "read_record": _with_a_shorter_payload})),
    ],
)
def test_the_corpus_finds_planted_bugs_in_payloads(
    monkeypatch: pytest.MonkeyPatch, name: str, part: str, mutant: object
) -> None:
    """A lost tag would never be invalidated, and a shortened payload is not what was stored."""
    monkeypatch.setattr(payload_targets, part, mutant)

    with pytest.raises(AssertionError):
        _replay(name)


def test_the_figures_of_a_run_are_read() -> None:
    """What libFuzzer prints at the end; nothing when it died before."""
    log = "x\nstat::number_of_executed_units: 348838\nstat::new_units_added:          572\nstat::peak_rss_mb:   56\n"

    assert read_figures(log) == Figures(348_838, 572, 56)
    assert read_figures("killed") == Figures(0, 0, 0)

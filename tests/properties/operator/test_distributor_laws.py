"""Laws of distribution over every order of publishing, answering, refusing, hanging, leaving and coming back.

Clients of the model differ in what they can run, and in whether they say what they refuse. `play` runs a schedule and
checks every law at every step; a planted bug must make it fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_operator.plan.distribution import Distribution, Resource, ResourceId, distribution_of
from ratelimit_operator.xds.channel import Channel
from ratelimit_operator.xds.distributor import Distributor
from ratelimit_operator.xds.subscription import Subscription
from ratelimit_operator.xds.view import View
from ratelimit_service.wire.xds.discovery import DiscoveryRequest, DiscoveryResponse, Nack, decode_response
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, Refusal, decode_any, decode_resource

NAMES = ("a", "b", "c", "d")
VERSIONS = ("1", "2", "3")
NODES = ("n0", "n1", "n2")

SETS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VERSIONS), min_size=1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), SETS),
        st.tuples(st.just("expect"), st.frozensets(st.sampled_from(NODES))),
        st.tuples(st.sampled_from(("connect", "reset", "receive", "answer", "stale")), st.sampled_from(NODES)),
    ),
    max_size=40,
)
CANNOT = st.frozensets(st.tuples(st.sampled_from(NODES), st.sampled_from(NAMES), st.sampled_from(VERSIONS)), max_size=6)
SILENT = st.frozensets(st.sampled_from(NODES))


class Client:
    """A replica: what it runs survives its streams."""

    def __init__(self, node: str, cannot: frozenset[tuple[str, str]], silent: bool) -> None:
        self.node = node
        self.cannot = cannot
        self.silent = silent
        self.runs: dict[str, str] = {}
        self.version = ""
        self.stream = 0
        self.pending: DiscoveryResponse | None = None
        self.last: tuple[tuple[str, str], ...] | None = None
        self.nonces: set[str] = set()
        self.refused: set[tuple[str, str]] = set()

    def content(self, response: DiscoveryResponse) -> dict[str, str]:
        found = [decode_resource(decode_any(packed).value) for packed in response.resources]
        return {each.name: each.version for each in found}

    def answer(self) -> DiscoveryRequest:
        response = self.pending
        assert response is not None
        self.pending = None
        content = self.content(response)
        bad = sorted(self.cannot & set(content.items()))
        if not bad:
            self.runs, self.version = content, response.version_info
            return DiscoveryRequest(RESOURCE_TYPE, self.version, response_nonce=response.nonce)
        self.refused.update(bad)
        named = () if self.silent else tuple(Refusal("Policy", name, version, "", "no") for name, version in bad)
        nack = Nack("no", named)
        return DiscoveryRequest(RESOURCE_TYPE, self.version, response_nonce=response.nonce, nack=nack)


class Play:
    """One schedule."""

    def __init__(self, cannot: frozenset[tuple[str, str, str]], silent: frozenset[str]) -> None:
        self.server = Distributor()
        self.clients = {
            node: Client(node, frozenset((n, v) for who, n, v in cannot if who == node), node in silent)
            for node in NODES
        }
        self.offered: dict[str, str] = {}
        self.streams = 0
        self.quarantined: set[str] = set()
        self.expected: frozenset[str] = frozenset()

    def expect(self, nodes: frozenset[str]) -> None:
        self.expected = nodes
        self.server.expect(nodes)

    def connected(self) -> list[Client]:
        return [client for client in self.clients.values() if client.stream]

    def publish(self, wanted: dict[str, str]) -> None:
        self.offered = wanted
        self.quarantined = set()
        for client in self.clients.values():
            client.last = None
        self.server.publish(set_of(wanted), 0.0, confirmed=True)

    def connect(self, client: Client) -> None:
        if client.stream:
            return
        self.streams += 1
        client.stream, client.last = self.streams, None
        client.nonces.clear()
        self.server.open(client.stream)
        self.server.receive(client.stream, DiscoveryRequest(RESOURCE_TYPE, client.version, client.node), 0.0)

    def reset(self, client: Client) -> None:
        if client.stream:
            self.server.close(client.stream)
            client.stream, client.pending = 0, None

    def receive(self, client: Client) -> bool:
        if not client.stream:
            return False
        encoded = self.server.next_response(client.stream, 0.0)
        if encoded is None:
            return False
        assert client.pending is None, "two responses under way"
        response = client.pending = decode_response(encoded)
        assert response.nonce not in client.nonces, "a nonce comes again on its stream"
        client.nonces.add(response.nonce)
        content = client.content(response)
        shown = tuple(sorted(content.items()))
        assert shown != client.last, "the same content twice in a row"
        client.last = shown
        lost = [name for name in client.runs if name in self.offered and name not in content]
        assert not lost, "a limit is taken away that is offered"
        assert set(content) <= set(self.offered), "a resource that is not offered"
        return True

    def answer(self, client: Client) -> None:
        if client.pending is not None:
            self.server.receive(client.stream, client.answer(), 0.0)

    def stale(self, client: Client) -> None:
        if client.stream:
            before = self.server.acked()
            self.server.receive(client.stream, DiscoveryRequest(RESOURCE_TYPE, "x", response_nonce="stale"), 0.0)
            assert self.server.acked() == before, "a stale nonce counts"

    def check(self) -> None:
        for identity, count in self.server.acked().items():
            running = [each for each in self.connected() if each.runs.get(identity.name) == self.offered[identity.name]]
            known = [each for each in running if self.server.nodes()[each.node].version]
            assert count == len(known), f"{identity} is counted wrong"
        members = self.expected.union(each.node for each in self.connected())
        now = {identity.name for identity in self.server.quarantined()}
        for name in now - self.quarantined:
            against = [node for node in members if (name, self.offered[name]) in self.clients[node].refused]
            assert 2 * len(against) >= len(members), f"{name} is quarantined by a minority"
        self.quarantined = now

    def settle(self) -> None:
        """Let everything be answered, then see what runs where."""
        for _ in range(400):
            moved = [self.receive(client) or client.pending is not None for client in self.connected()]
            for client in self.connected():
                self.answer(client)
            self.check()
            if not any(moved):
                break
        else:
            raise AssertionError("it does not come to rest")
        for client in self.connected():
            for name, version in self.offered.items():
                can = (name, version) not in client.cannot
                if can and name not in self.quarantined:
                    assert client.runs.get(name) == version, f"{client.node} lacks {name}"
                if not can:
                    assert client.runs.get(name) != version
            assert set(client.runs) <= set(self.offered)


def set_of(wanted: dict[str, str]) -> Distribution:
    return distribution_of(Resource(ResourceId("Policy", name), version, b"{}", ()) for name, version in wanted.items())


def play(steps: list[tuple[str, Any]], cannot: frozenset[tuple[str, str, str]], silent: frozenset[str]) -> None:
    game = Play(cannot, silent)
    game.publish({"a": "1", "b": "1", "c": "1"})
    for what, of in steps:
        getattr(game, what)(game.clients[of] if isinstance(of, str) else of)
        game.check()
    game.settle()


@given(STEPS, CANNOT, SILENT)
def test_every_schedule_keeps_the_laws(steps, cannot, silent) -> None:
    """See `Play`."""
    play(steps, cannot, silent)


def _judge_at_once(self: Channel, name: str, *, at_once: bool = False) -> None:
    _JUDGE(self, name, at_once=True)


def _accept_any_nonce(self: Distributor, stream: int, request: DiscoveryRequest, now_s: float) -> None:
    under_way = self._own.subscriptions.get(stream)
    if under_way is not None and under_way.sent is not None and request.nack is None:
        self._own.accept(stream)
    else:
        _RECEIVE(self, stream, request, now_s)


def _drop_what_is_refused(self: Subscription, base: View, settled: Any) -> View:
    kept = self._exceptions(base)
    return View({name: form for name, form in base.forms.items() if name not in kept}) if kept else base


def _forget_to_count_down(self: Channel, stream: int) -> None:
    self.subscriptions.pop(stream, None)


def _end_is_refusal(self: Channel, stream: int) -> None:
    under_way = self.subscriptions.get(stream)
    if under_way is not None and under_way.sent is not None:
        self.refuse(stream, Nack("gone"))
    _UNSUBSCRIBE(self, stream)


def _never_release(self: Subscription) -> None:
    """What is held back stays so."""


def _ignore_refusals(self: Subscription, name: str, version: str, message: str) -> None:
    """So the same is sent again and again."""


def _name_all_alike(self: Distributor, type_url: str, view: View, _before: str) -> tuple[str, bytes]:
    return "1", view.response(type_url, "1")


_JUDGE, _RECEIVE, _UNSUBSCRIBE = Channel._judge, Distributor.receive, Channel.unsubscribe

ALL_RUN = [(what, node) for node in NODES for what in ("connect", "receive", "answer")]
NEW_A = [("publish", {"a": "2", "b": "1", "c": "1"}), ("receive", "n0"), ("answer", "n0")]
Bug = tuple[type, str, Callable[..., Any], list[tuple[str, Any]], frozenset[tuple[str, str, str]], frozenset[str]]
REFUSES_A = frozenset({("n0", "a", "2")})
BUGS: list[Bug] = [
    (Channel, "_judge", _judge_at_once, [*ALL_RUN, *NEW_A], REFUSES_A, frozenset()),
    (Distributor, "receive", _accept_any_nonce, [*ALL_RUN[:2], ("stale", "n0")], frozenset(), frozenset()),
    (Subscription, "desired", _drop_what_is_refused, [*ALL_RUN, *NEW_A, ("receive", "n0")], REFUSES_A, frozenset()),
    (Channel, "unsubscribe", _forget_to_count_down, [*ALL_RUN, ("reset", "n0")], frozenset(), frozenset()),
    (
        Channel,
        "unsubscribe",
        _end_is_refusal,
        [*ALL_RUN[:6], ("expect", frozenset({"n0", "n1"})), *NEW_A[:2], ("reset", "n0")],
        frozenset(),
        frozenset(),
    ),
    (
        Subscription,
        "release",
        _never_release,
        [*ALL_RUN, ("publish", dict.fromkeys(NAMES, "2"))],
        REFUSES_A,
        frozenset({"n0"}),
    ),
    (Distributor, "_response", _name_all_alike, [*ALL_RUN, *NEW_A], frozenset(), frozenset()),
    (Subscription, "refuse", _ignore_refusals, [*ALL_RUN, *NEW_A], REFUSES_A, frozenset()),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug[2].__name__)
def test_a_planted_bug_is_caught(monkeypatch, bug: Bug) -> None:
    """The schedule keeps the laws without it and breaks one with it."""
    cls, method, broken, steps, cannot, silent = bug
    play(steps, cannot, silent)
    monkeypatch.setattr(cls, method, broken)

    with pytest.raises((AssertionError, KeyError)):
        play(steps, cannot, silent)

"""The ADS server without its sockets: messages in, messages out, time as an argument.

The rules of the protocol (xds_protocol.rst, state of the world):

1. A stream names its client with its first request, and never another one. A client that comes again replaces itself.
2. Of a type that is not served, nothing is said.
3. A request with the nonce of the response that is under way accepts it, or with `error_detail` refuses it. Another
   nonce is stale and changes nothing. Nonces die with their stream; the version that a client names when it comes
   again spares it what it already runs.
4. One response of a type is under way on a stream at most: what changes meanwhile is sent together when it is answered,
   so a slow reader costs one response and misses nothing that still matters.
5. The same content is never sent twice in a row, and the end of a stream says nothing about what was under way on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from ratelimit_operator.plan.distribution import Distribution, ResourceId
from ratelimit_operator.xds.channel import Channel
from ratelimit_operator.xds.forms import Form, form_of
from ratelimit_operator.xds.view import View
from ratelimit_service.errors import TidegateError
from ratelimit_service.wire.xds.discovery import DiscoveryRequest
from ratelimit_service.wire.xds.rate_limit_config import RATE_LIMIT_CONFIG_TYPE
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE

MAX_NODE_CHARS = 253
"""Longest name of a client: a pod's name is no longer."""

_GUARDED_FROM = 4
"""Policies from which on a set may not lose more than half of them at once, unless that is confirmed."""


class ProtocolError(TidegateError):
    """A client breaks the protocol; its stream is to be ended with this message."""


class Response(NamedTuple):
    """A message that may go to many streams."""

    type_url: str
    view: View
    nonce: str
    encoded: bytes


class NodeState(msgspec.Struct, frozen=True):
    """A connected replica of the service.

    Attributes:
        version: Version of what it runs, empty: nothing yet.
        is_synced: Whether that is exactly what is offered to all.
        refused: `<kind> <namespace>/<name>` → why it will not run the offered form.
        error: Its last refusal as a whole, empty: none since it last accepted.
    """

    version: str
    is_synced: bool
    refused: Mapping[str, str]
    error: str


class Stats(msgspec.Struct):
    """What happened since the start; grows only, but for `streams`."""

    streams: int = 0
    opened: int = 0
    superseded: int = 0
    responses: int = 0
    response_bytes: int = 0
    acks: int = 0
    nacks: int = 0
    stale: int = 0
    unknown_types: int = 0
    shrinks_held: int = 0


class Distributor:
    """Every stream, every type. Not thread-safe.

    Attributes:
        stats: Counts.
        held: Why the newest set is not given out, empty: it is.
        propagation_s: How long the newest set that reached every replica took, None: none has yet.
    """

    def __init__(self, *, canary: bool = False) -> None:
        self.stats = Stats()
        self.held = ""
        self.propagation_s: float | None = None
        self._own = Channel(canary=canary)
        self._channels = {RESOURCE_TYPE: self._own, RATE_LIMIT_CONFIG_TYPE: Channel()}
        self._nodes: dict[int, str] = {}
        self._woken: set[int] = set()
        self._closing: dict[int, str] = {}
        self._ended: set[int] = set()
        self._forms: dict[ResourceId, tuple[str, Form]] = {}
        self._nonces = 0
        self._newest: Response | None = None
        self._published: Distribution | None = None
        self._published_at_s = 0.0
        self._propagated = ""

    # What the operator says.

    def publish(self, distribution: Distribution, now_s: float, *, confirmed: bool = False) -> bool:
        """Give out a set; False: it is held back, and `held` says why.

        A set that would lose more than half of the policies is given out only when it is `confirmed` by a second
        complete LIST.
        """
        before = 0 if self._published is None else self._published.policy_count
        after = distribution.policy_count
        if before >= _GUARDED_FROM and 2 * after < before and not confirmed:
            self.held = f"would lose {before - after} of {before} policies; waits for a second complete list"
            self.stats.shrinks_held += 1
            return False
        self._give_out(distribution, now_s)
        return True

    def seed(self, distribution: Distribution) -> None:
        """Take what replicas accepted before this process began, as the last snapshot tells."""
        self._own.seed({str(each.id): form_of(each) for each in distribution.resources.values()})

    def expect(self, nodes: Iterable[str]) -> None:
        """Name the replicas that there should be, connected or not, so that a few do not speak for all."""
        self._own.expect(nodes)
        self._wake_all()

    def offer(self, type_url: str, forms: Mapping[str, Form]) -> None:
        """Give out resources of a foreign type, by name."""
        self._channels[type_url].offer(forms)
        self._wake_all()

    def wants(self, type_url: str) -> bool:
        """Whether any client subscribes to a type."""
        return bool(self._channels[type_url].subscriptions)

    # What streams say.

    def open(self, stream: int) -> None:
        """A stream begins; its number was never used before."""
        self._nodes[stream] = ""
        self.stats.opened += 1
        self.stats.streams += 1

    def receive(self, stream: int, request: DiscoveryRequest, now_s: float) -> None:
        """A request has come.

        Raises:
            ProtocolError: The stream is to be ended, with this message.
        """
        if stream in self._ended:
            return
        self._name(stream, request.node_id)
        channel = self._channels.get(request.type_url)
        if channel is None:
            self.stats.unknown_types += 1
            return
        subscription, turns = channel.subscriptions.get(stream), channel.turns
        if subscription is None:
            channel.subscribe(stream, self._nodes[stream], request.version_info)
        elif subscription.sent is None or request.response_nonce != subscription.nonce:
            self.stats.stale += 1
        elif request.nack is None:
            self.stats.acks += 1
            channel.accept(stream)
        else:
            self.stats.nacks += 1
            channel.refuse(stream, request.nack)
        self._woken.add(stream)
        if channel.turns != turns:
            self._wake_all()
        self._note_propagation(now_s)

    def close(self, stream: int) -> None:
        """A stream has ended, whoever ended it."""
        if self._nodes.pop(stream, None) is None:
            return
        self.stats.streams -= 1
        self._woken.discard(stream)
        self._closing.pop(stream, None)
        self._ended.discard(stream)
        for channel in self._channels.values():
            channel.unsubscribe(stream)
        self._wake_all()

    # What is to be done.

    def next_response(self, stream: int, now_s: float) -> bytes | None:
        """The next message of a stream, which is taken as sent; None: there is none for now."""
        for type_url, channel in self._channels.items():
            view = channel.next_view(stream)
            if view is not None:
                nonce, encoded = self._response(type_url, view, channel.subscriptions[stream].nonce)
                channel.subscriptions[stream].send(view, nonce, now_s)
                self.stats.responses += 1
                self.stats.response_bytes += len(encoded)
                return encoded
        return None

    def _response(self, type_url: str, view: View, before: str) -> tuple[str, bytes]:
        """Nonce and bytes, the same ones for all streams that are sent a set one after the other.

        A set of thousands of policies is megabytes, and thirty streams would each hold their own while it is under
        way. `before`: the last nonce of the stream; a stream never sees one twice, so that an answer to an earlier
        response is known.
        """
        newest = self._newest
        if newest is None or newest.view is not view or newest.type_url != type_url or newest.nonce == before:
            self._nonces += 1
            nonce = str(self._nonces)
            newest = self._newest = Response(type_url, view, nonce, view.response(type_url, nonce))
        return newest.nonce, newest.encoded

    def take_woken(self) -> set[int]:
        """Streams that may have something to be sent, since the last call."""
        woken, self._woken = self._woken, set()
        return woken

    def take_closing(self) -> dict[int, str]:
        """Streams that are to be ended, with the reason, since the last call."""
        closing, self._closing = self._closing, {}
        return closing

    def unanswered(self, before_s: float) -> list[int]:
        """Streams with a response that was sent before that time and is not answered yet."""
        late = {
            stream
            for channel in self._channels.values()
            for stream, each in channel.subscriptions.items()
            if each.sent is not None and each.sent_at_s < before_s
        }
        return sorted(late)

    # What a status shows.

    @property
    def changes(self) -> int:
        """Grows with every change of what `acked`, `nodes` and `quarantined` answer."""
        return self._own.changes

    def acked(self) -> dict[ResourceId, int]:
        """Resource → replicas that run its published version."""
        published = {} if self._published is None else self._published.resources
        return {identity: self._own.acked(str(identity)) for identity in published}

    def acked_of(self, identity: ResourceId) -> int:
        """Replicas that run the published version of one resource."""
        return self._own.acked(str(identity))

    def nodes(self) -> dict[str, NodeState]:
        """Connected replicas of the service by name."""
        offered = "" if self._own.offered is None else self._own.offered.version
        return {
            each.node: NodeState(
                version=each.accepted.version if each.answered else "",
                is_synced=each.answered and each.accepted.version == offered,
                refused=dict(each.errors),
                error=each.error,
            )
            for each in self._own.subscriptions.values()
        }

    def quarantined(self) -> dict[ResourceId, str]:
        """Resource → why its published version is not given out."""
        held = self._own.quarantined
        published = {} if self._published is None or not held else self._published.resources
        return {identity: held[str(identity)].error for identity in published if str(identity) in held}

    @property
    def published(self) -> Distribution | None:
        """The set that is given out, None: none yet."""
        return self._published

    # How.

    def _give_out(self, distribution: Distribution, now_s: float) -> None:
        self.held = ""
        if self._published is not None and self._published.version == distribution.version:
            return
        self._published, self._published_at_s = distribution, now_s
        forms: dict[ResourceId, tuple[str, Form]] = {}
        for identity, resource in distribution.resources.items():
            known = self._forms.get(identity)
            if known is None or known[1].version != resource.version:
                known = (str(identity), form_of(resource))
            forms[identity] = known
        self._forms = forms
        self._own.offer(dict(forms.values()))
        self._wake_all()
        self._note_propagation(now_s)

    def _name(self, stream: int, node: str) -> None:
        """Hold a stream to its one client, and let a client that comes again replace itself."""
        known = self._nodes[stream]
        if known:
            if node not in ("", known):
                raise ProtocolError(f"the stream of node {known[:MAX_NODE_CHARS]} names another one")
            return
        if not 0 < len(node) <= MAX_NODE_CHARS:
            raise ProtocolError(f"the first request of a stream names its node, in 1 to {MAX_NODE_CHARS} characters")
        for other, name in self._nodes.items():
            if name == node and other not in self._ended:
                self._ended.add(other)
                self._closing[other] = f"node {node} has a newer stream"
                self.stats.superseded += 1
                for channel in self._channels.values():
                    channel.unsubscribe(other)
        self._nodes[stream] = node

    def _wake_all(self) -> None:
        self._woken.update(self._nodes.keys() - self._ended)

    def _note_propagation(self, now_s: float) -> None:
        published = self._published
        if published is None or not self._own.subscriptions or not self._own.is_synced():
            return
        if published.version != self._propagated:
            self.propagation_s = now_s - self._published_at_s
            self._propagated = published.version

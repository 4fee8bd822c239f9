"""What the laws reach only by luck: canary, guard, storms, members that are expected."""

from __future__ import annotations

import pytest

from ratelimit_operator.plan.distribution import Distribution, ResourceId
from ratelimit_operator.xds.distributor import Distributor, ProtocolError
from ratelimit_operator.xds.forms import form_of
from ratelimit_operator.xds.subscription import MAX_NACKS_IN_A_ROW
from ratelimit_service.wire.xds.discovery import DiscoveryRequest, DiscoveryResponse, Nack, decode_response
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, Refusal
from support.ads_client import resources_of
from support.distributions import policies, policy_resource

P0, P1 = ResourceId("Policy", "shop/p0"), ResourceId("Policy", "shop/p1")
REFUSES_P0 = Nack("no p0", (Refusal("Policy", "shop/p0", "", "", "no"),))


class Replica:
    """One stream of a distributor, driven by hand."""

    def __init__(self, server: Distributor, node: str, number: int) -> None:
        self.server, self.node, self.number = server, node, number
        server.open(number)
        self.say(DiscoveryRequest(RESOURCE_TYPE, node_id=node))

    def say(self, request: DiscoveryRequest) -> None:
        self.server.receive(self.number, request, 0.0)

    def receive(self) -> DiscoveryResponse | None:
        encoded = self.server.next_response(self.number, 0.0)
        return None if encoded is None else decode_response(encoded)

    def must_receive(self) -> DiscoveryResponse:
        response = self.receive()
        assert response is not None
        return response

    def accept(self) -> DiscoveryResponse:
        response = self.must_receive()
        self.say(DiscoveryRequest(RESOURCE_TYPE, response.version_info, response_nonce=response.nonce))
        return response

    def refuse(self, nack: Nack) -> DiscoveryResponse:
        response = self.must_receive()
        self.say(DiscoveryRequest(RESOURCE_TYPE, response_nonce=response.nonce, nack=nack))
        return response


def replicas(server: Distributor, count: int) -> list[Replica]:
    return [Replica(server, f"n{number}", number) for number in range(count)]


def requests_of(response: DiscoveryResponse, policy: str) -> int:
    body = resources_of(response)[f"Policy shop/{policy}"].body
    return int(body.partition(b'"requests":')[2].partition(b",")[0].rstrip(b"}]"))


def test_streams_that_are_sent_a_set_share_its_bytes() -> None:
    """Thirty replicas and megabytes: one copy, whatever each stream was sent before; the next set has other bytes."""
    server = Distributor()
    server.publish(policies(2), 0.0)
    early = Replica(server, "early", 1)
    early.accept()
    late = Replica(server, "late", 2)
    server.publish(policies(2, p0=9), 0.0)

    first, second = server.next_response(early.number, 0.0), server.next_response(late.number, 0.0)

    assert first is not None
    assert first is second


def test_a_refusal_by_one_of_three_marks_that_replica_only() -> None:
    """It stays with what it had of that policy, and gets everything else; the policy is live on the rest."""
    server = Distributor()
    server.publish(policies(2), 0.0)
    nodes = replicas(server, 3)
    for node in nodes:
        node.accept()
    server.publish(policies(2, p0=9, p1=9), 0.0)
    nodes[0].refuse(REFUSES_P0)
    own = nodes[0].accept()
    for node in nodes[1:]:
        node.accept()

    assert (requests_of(own, "p0"), requests_of(own, "p1")) == (5, 9)
    assert server.quarantined() == {}
    assert (server.acked_of(P0), server.acked_of(P1)) == (2, 3)
    assert server.nodes()["n0"].refused == {"Policy shop/p0": "no"}
    assert not server.nodes()["n0"].is_synced


def test_a_refusal_by_two_of_three_quarantines_the_policy() -> None:
    """The replica that had taken it goes back to what all ran before."""
    server = Distributor()
    server.publish(policies(2), 0.0)
    nodes = replicas(server, 3)
    for node in nodes:
        node.accept()
    server.publish(policies(2, p0=9), 0.0)
    nodes[0].accept()
    nodes[1].refuse(REFUSES_P0)
    assert server.quarantined() == {}
    nodes[2].refuse(REFUSES_P0)

    assert server.quarantined() == {P0: "no"}
    assert requests_of(nodes[0].accept(), "p0") == 5
    server.publish(policies(2, p0=10), 0.0)
    assert server.quarantined() == {}
    assert [requests_of(node.accept(), "p0") for node in nodes] == [10, 10, 10]


def test_replicas_that_are_expected_count_although_they_are_away() -> None:
    """After a restart of the operator the first to come does not speak for all."""
    server = Distributor()
    server.publish(policies(1), 0.0)
    server.expect({"n0", "n1", "n2"})
    first = Replica(server, "n0", 0)
    first.refuse(REFUSES_P0)

    assert server.quarantined() == {}
    server.expect({"n0"})
    assert server.quarantined() == {P0: "no"}


def test_a_quarantine_without_an_older_form_takes_nothing_away() -> None:
    """Whoever can run it goes on to, and when most do it is lifted."""
    server = Distributor()
    server.publish(policies(1), 0.0)
    nodes = replicas(server, 2)
    nodes[0].refuse(REFUSES_P0)
    assert server.quarantined() == {P0: "no"}
    assert "Policy shop/p0" not in resources_of(nodes[0].accept())
    assert "Policy shop/p0" in resources_of(nodes[1].accept())
    third = Replica(server, "n2", 7)
    third.accept()

    assert server.quarantined() == {}


def test_what_was_accepted_before_this_process_began_is_what_a_bad_form_falls_back_to() -> None:
    """The snapshot says what ran."""
    server = Distributor()
    server.seed(policies(1))
    server.publish(policies(1, p0=9), 0.0)
    (node,) = replicas(server, 1)
    node.refuse(REFUSES_P0)

    assert requests_of(node.accept(), "p0") == 5


def test_a_quarantine_ends_when_nobody_refuses_any_more() -> None:
    """The replica that could not run it was replaced."""
    server = Distributor()
    server.publish(policies(1), 0.0)
    nodes = replicas(server, 2)
    for node in nodes:
        node.accept()
    server.publish(policies(1, p0=9), 0.0)
    nodes[0].refuse(REFUSES_P0)
    assert server.quarantined() == {P0: "no"}
    server.close(0)

    assert server.quarantined() == {}
    assert requests_of(nodes[1].accept(), "p0") == 9


def test_a_replica_that_has_learnt_to_run_it_lifts_the_quarantine() -> None:
    """It comes back as a newer version of the program."""
    server = Distributor()
    server.expect({"n0", "n1"})
    server.publish(policies(1), 0.0)
    (old,) = replicas(server, 1)
    old.refuse(REFUSES_P0)
    assert server.quarantined() == {P0: "no"}
    server.close(0)
    Replica(server, "n0", 1).accept()

    assert server.quarantined() == {}


def test_a_client_that_names_nothing_is_bisected() -> None:
    """Two culprits among twenty are found; the rest arrives; refusals stay logarithmic."""
    server = Distributor()
    server.publish(policies(20), 0.0)
    (node,) = replicas(server, 1)
    bad = {"Policy shop/p3", "Policy shop/p17"}
    forms = {str(each.id): form_of(each).version for each in policies(20).resources.values()}
    refusals = 0
    while (response := node.receive()) is not None:
        detail = None
        if bad & set(resources_of(response)):
            detail, refusals = Nack("it does not say"), refusals + 1
        node.say(DiscoveryRequest(RESOURCE_TYPE, "", response_nonce=response.nonce, nack=detail))
        last = resources_of(response)

    assert {str(identity) for identity in server.quarantined()} == bad
    assert set(last) == set(forms) - bad
    assert refusals <= 16


def test_a_storm_of_refusals_ends() -> None:
    """A client that refuses whatever comes is told nothing more until there is something new."""
    server = Distributor()
    server.publish(policies(500), 0.0)
    (node,) = replicas(server, 1)
    refused = 0
    while (response := node.receive()) is not None:
        node.say(DiscoveryRequest(RESOURCE_TYPE, response_nonce=response.nonce, nack=Nack("never")))
        refused += 1
    assert refused == MAX_NACKS_IN_A_ROW
    server.publish(policies(500, p0=6), 0.0)

    assert node.receive() is not None


def test_a_client_that_refuses_what_it_runs_is_left_alone() -> None:
    """There is nothing that could be left out."""
    server = Distributor()
    server.publish(policies(2), 0.0)
    (node,) = replicas(server, 1)
    node.accept()
    server.publish(policies(1), 0.0, confirmed=True)
    node.refuse(Nack("I keep p1"))

    assert node.receive() is None
    assert server.nodes()["n0"].error == "I keep p1"


def test_a_canary_goes_first() -> None:
    """The others have what is new only when it accepts; what it refuses is quarantined at once."""
    server = Distributor(canary=True)
    server.publish(policies(2), 0.0)
    nodes = replicas(server, 3)
    assert nodes[1].receive() is None
    for node in nodes:
        node.accept()
    server.publish(policies(2, p0=9, p1=9), 0.0)
    assert nodes[1].receive() is None
    nodes[0].refuse(REFUSES_P0)
    assert server.quarantined() == {P0: "no"}
    assert nodes[1].receive() is None
    nodes[0].accept()
    after = nodes[1].accept()

    assert (requests_of(after, "p0"), requests_of(after, "p1")) == (5, 9)


def test_a_canary_that_refuses_three_times_ends_the_attempt() -> None:
    """All of it is quarantined, and everybody runs what was accepted last."""
    server = Distributor(canary=True)
    server.publish(policies(40), 0.0)
    nodes = replicas(server, 2)
    for node in nodes:
        node.accept()
    server.publish(policies(40, **{f"p{number}": 9 for number in range(8)}), 0.0)
    for _ in range(3):
        nodes[0].refuse(Nack("no"))

    assert P0 in server.quarantined()
    while (response := nodes[0].receive()) is not None:
        nodes[0].say(DiscoveryRequest(RESOURCE_TYPE, "", response_nonce=response.nonce))
    assert server.acked_of(P0) == 0


def test_a_canary_that_leaves_is_followed_by_the_next() -> None:
    """An attempt does not hang on one replica."""
    server = Distributor(canary=True)
    server.publish(policies(1), 0.0)
    nodes = replicas(server, 2)
    for node in nodes:
        node.accept()
    server.publish(policies(1, p0=9), 0.0)
    server.close(0)

    assert requests_of(nodes[1].accept(), "p0") == 9


def test_a_set_that_loses_more_than_half_waits_for_a_second_look() -> None:
    """A list that came back short must not take limits away."""
    server = Distributor()
    assert server.publish(policies(10), 0.0)
    assert not server.publish(policies(4), 0.0)
    assert server.held == "would lose 6 of 10 policies; waits for a second complete list"
    assert server.published == policies(10)
    assert server.publish(policies(5), 0.0)
    assert server.held == ""
    assert server.publish(policies(1), 0.0, confirmed=True)


def test_small_sets_may_lose_anything() -> None:
    """Where there are two policies, deleting both is an ordinary day."""
    server = Distributor()
    server.publish(policies(3), 0.0)

    assert server.publish(Distribution("empty", {}), 0.0)


def test_names_of_nodes_are_bounded() -> None:
    """They are shown in logs and status."""
    server = Distributor()
    server.open(1)

    with pytest.raises(ProtocolError, match="1 to 253"):
        server.receive(1, DiscoveryRequest(RESOURCE_TYPE, node_id="x" * 254), 0.0)


def test_a_type_that_nobody_serves_is_passed_over() -> None:
    """A client may ask for it beside ours."""
    server = Distributor()
    server.publish(policies(1), 0.0)
    (node,) = replicas(server, 1)
    node.say(DiscoveryRequest("type.googleapis.com/envoy.config.cluster.v3.Cluster"))

    assert server.stats.unknown_types == 1
    node.accept()
    assert server.acked_of(P0) == 1


def test_a_superseded_stream_is_not_listened_to() -> None:
    """Whatever it still says."""
    server = Distributor()
    server.publish(policies(1), 0.0)
    old = Replica(server, "n0", 1)
    response = old.must_receive()
    new = Replica(server, "n0", 2)
    old.say(DiscoveryRequest(RESOURCE_TYPE, response.version_info, response_nonce=response.nonce))

    assert server.take_closing() == {1: "node n0 has a newer stream"}
    assert server.acked_of(P0) == 0
    server.close(1)
    server.close(1)
    new.accept()
    assert server.acked_of(P0) == 1


def test_what_is_not_answered_is_found() -> None:
    """By the time at which it was sent."""
    server = Distributor()
    server.publish(policies(1), 0.0)
    (node,) = replicas(server, 1)
    server.next_response(node.number, 10.0)

    assert server.unanswered(10.0) == []
    assert server.unanswered(10.1) == [0]


def test_a_resource_that_is_gone_is_forgotten() -> None:
    """Its count, its quarantine, and the form that it fell back to."""
    server = Distributor()
    server.publish(policies(2), 0.0)
    (node,) = replicas(server, 1)
    node.accept()
    server.publish(policies(2, p1=9), 0.0)
    node.refuse(Nack("", (Refusal("Policy", "shop/p1", "", "", "no"),)))
    assert server.quarantined() == {P1: "no"}
    server.publish(policies(1), 0.0)
    assert "Policy shop/p1" not in resources_of(node.accept())
    assert server.quarantined() == {}
    assert server.acked_of(P1) == 0
    server.publish(policies(2, p1=9), 0.0)

    assert requests_of(node.accept(), "p1") == 9


def test_the_bytes_of_a_resource_are_made_once() -> None:
    """A set in which one policy changed shares every other form."""
    server = Distributor()
    server.publish(policies(2), 0.0)
    before = dict(server._forms)
    server.publish(policies(2, p1=9), 0.0)

    assert server._forms[P0][1] is before[P0][1]
    assert server._forms[P1][1].packed != before[P1][1].packed
    assert policy_resource("p0") is not policy_resource("p0")

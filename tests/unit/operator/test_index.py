"""Events that are late, double, out of order or missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ratelimit_operator.api.objects import observe_policy
from ratelimit_operator.api.status import RateLimitPolicyStatus
from ratelimit_operator.plan.index import Index, Listed, key_of
from support.plan_worlds import body, rule


def _body(name: str, version: int, uid: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "a", "uid": uid or f"u-{name}", "resourceVersion": str(version)},
        "spec": version,
    }


def _spec(given_body: Mapping[str, Any], _before: int | None) -> int:
    return int(given_body["spec"])


def _index() -> Index[int]:
    return Index(_spec)


def _listed(*bodies: dict[str, Any]) -> list[Listed]:
    return [
        Listed(key_of(each["metadata"]), each["metadata"]["uid"], each["metadata"]["resourceVersion"])
        for each in bodies
    ]


def test_an_older_event_changes_nothing() -> None:
    """Nor does the same one twice."""
    index = _index()

    assert index.put(_body("x", 5), 0.0)
    assert not index.put(_body("x", 4), 0.0)
    assert not index.put(_body("x", 5), 0.0)
    assert index.objects() == {"a/x": 5}


def test_what_was_deleted_stays_deleted() -> None:
    """A late event of the same object is none; another object of its name is."""
    index = _index()
    index.put(_body("x", 5), 0.0)

    assert index.remove(_body("x", 6))
    assert not index.put(_body("x", 4), 0.0)
    assert not index.remove(_body("x", 6))
    assert index.put(_body("x", 9, "u2"), 0.0)
    assert not index.remove(_body("x", 6))
    assert index.objects() == {"a/x": 9}


def test_a_list_removes_what_it_lacks() -> None:
    """The deletion happened while nobody watched: a ghost, counted."""
    index = _index()
    index.put(_body("gone", 1), 0.0)
    index.put(_body("kept", 2), 0.0)

    stale, removed = index.reconcile(_listed(_body("kept", 2)), began_s=1.0)

    assert (stale, removed, index.ghosts) == ([], True, 1)
    assert index.objects() == {"a/kept": 2}


def test_a_list_does_not_remove_what_came_after_it_began() -> None:
    """The list is older than the event."""
    index = _index()
    index.put(_body("new", 1), 2.0)

    assert index.reconcile([], began_s=1.0) == ([], False)
    assert index.get("a/new") == 1


def test_a_list_tells_what_has_to_be_read() -> None:
    """Unknown, newer, or another object of the same name; not what is known to be deleted."""
    index = _index()
    index.put(_body("old", 1), 0.0)
    index.put(_body("same", 1), 0.0)
    index.put(_body("other", 1), 0.0)
    index.put(_body("dead", 1), 0.0)
    index.remove(_body("dead", 2))
    listed = _listed(_body("old", 2), _body("same", 1), _body("other", 1, "u2"), _body("new", 3), _body("dead", 1))

    stale, _ = index.reconcile(listed, began_s=1.0)

    assert stale == ["a/old", "a/other", "a/new"]


def test_tombstones_are_bounded() -> None:
    """A month of deletions costs no memory."""
    index = _index()
    for number in range(10_001):
        index.remove(_body("x", 1, f"u{number}"))

    assert len(index._deleted) == 10_000


_EVENTS = st.lists(st.tuples(st.sampled_from(["x", "y"]), st.integers(1, 3), st.booleans()), min_size=1, max_size=12)


@given(_EVENTS, st.randoms(use_true_random=False))
def test_events_in_any_order_end_where_a_list_says(events: list[tuple[str, int, bool]], random: Any) -> None:
    """Whatever was lost, doubled or swapped: after a list, what is known is what is there."""
    truth: dict[str, tuple[int, str]] = {}
    told = []
    for version, (name, generation, deleted) in enumerate(events, 1):
        uid = truth.get(name, (0, f"u-{name}-{version}"))[1]
        if deleted:
            truth.pop(name, None)
        else:
            truth[name] = (version, uid)
        told.append((deleted, _body(name, version, uid)))
        told += [told[-1]] * (generation - 1)
    random.shuffle(told)
    index = _index()
    for deleted, each in told[: len(told) // 2]:
        if deleted:
            index.remove(each)
        else:
            index.put(each, 0.0)

    there = {name: _body(name, number, uid) for name, (number, uid) in truth.items()}
    stale, _ = index.reconcile(_listed(*there.values()), began_s=1.0)
    for key in stale:
        index.put(there[key.rpartition("/")[2]], 2.0)

    assert index.objects() == {f"a/{name}": number for name, (number, _) in truth.items()}


def test_a_spec_is_decoded_once() -> None:
    """A write of status alone brings the same manifest again."""
    first = body("RateLimitPolicy", "a/x", {"domain": "a.web", "rules": [rule("r1")]})
    one = observe_policy(first)

    again = observe_policy(first | {"status": {"observedGeneration": 1}}, one)
    changed = observe_policy(body("RateLimitPolicy", "a/x", {"domain": "a.web", "rules": []}, generation=2), again)

    assert again.manifest is one.manifest
    assert again.status.observed_generation == 1
    assert changed.manifest is None
    assert changed.problems


def test_a_status_that_cannot_be_read_counts_as_empty() -> None:
    """It is written anew."""
    seen = observe_policy(
        body("RateLimitPolicy", "a/x", {"domain": "a.web", "rules": [rule("r1")]}) | {"status": {"conditions": "?"}}
    )

    assert seen.status == RateLimitPolicyStatus()

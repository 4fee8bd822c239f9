"""Worlds of a few objects that meet in every way, for the laws of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

from ratelimit_operator.api.objects import observe_policy, observe_profile
from ratelimit_operator.plan.world import ObservedPolicy, ObservedProfile, Scope, World

NAMESPACES = ("a", "b")
DOMAINS = ("a.web", "b.web")
PROFILES = ("a/p", "b/p", "b/q")


def body(kind: str, key: str, spec: object, *, created: int = 0, generation: int = 1, uid: str = "") -> dict[str, Any]:
    """An object as the API server gives it; `created`: minutes."""
    namespace, _, name = key.partition("/")
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"{kind}-{key}-{created}",
            "creationTimestamp": f"2026-01-01T00:{created:02d}:00Z",
            "generation": generation,
            "resourceVersion": str(generation),
        },
        "spec": spec,
    }


def policy(key: str, spec: object, **metadata: Any) -> ObservedPolicy:
    """A policy as it is observed."""
    return observe_policy(body("RateLimitPolicy", key, spec, **metadata))


def profile(key: str, spec: object, **metadata: Any) -> ObservedProfile:
    """A profile as it is observed."""
    return observe_profile(body("CacheProfile", key, spec, **metadata))


def rule(name: str, key: str = "user", requests: int = 5) -> dict[str, Any]:
    """A rule for any value of a key."""
    return {
        "name": name,
        "match": [{"key": key, "type": "Any"}],
        "limits": [{"requests": requests, "window": "1m"}],
    }


def world(
    policies: Mapping[str, ObservedPolicy] | None = None,
    profiles: Mapping[str, ObservedProfile] | None = None,
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
    scope: Scope | None = None,
) -> World:
    """A world; namespaces without labels unless said otherwise."""
    return World(policies or {}, profiles or {}, namespaces or {}, scope or Scope("tidegate-system"))


def of(*objects: Any) -> dict[str, Any]:
    """Objects by their keys."""
    return {each.key: each for each in objects}


_REFS = st.sampled_from([None, *PROFILES, "b/missing"])


@st.composite
def _policies(draw: st.DrawFn, created: Mapping[str, int], generation: int) -> dict[str, ObservedPolicy]:
    found = {}
    for key, age in created.items():
        rules = draw(
            st.lists(
                st.tuples(st.sampled_from(["r1", "r2"]), st.sampled_from(["user", "tenant"])),
                min_size=1,
                max_size=2,
                unique_by=(lambda each: each[0], lambda each: each[1]),
            )
        )
        spec: dict[str, Any] = {
            "domain": draw(st.sampled_from(DOMAINS)),
            "rules": [rule(name, entry, draw(st.integers(1, 3))) for name, entry in rules],
        }
        reference = draw(_REFS)
        if reference is not None:
            namespace, _, name = reference.partition("/")
            spec["cacheProfileRef"] = {"name": name, "namespace": namespace}
        if draw(st.integers(0, 4)) == 0:
            spec["rules"][0]["limits"] = [{"requests": 5, "window": "1ms"}]
        found[key] = policy(key, spec, created=age, generation=generation)
    return found


@st.composite
def _profiles(draw: st.DrawFn, created: Mapping[str, int], generation: int) -> dict[str, ObservedProfile]:
    found = {}
    for key, age in created.items():
        spec: dict[str, Any] = {
            "default": draw(st.booleans()),
            "allowedNamespaces": {"from": draw(st.sampled_from(["Same", "All"]))},
        }
        if draw(st.integers(0, 5)) == 0:
            spec["store"] = {"type": "Redis", "endpoints": ["redis"]}
        found[key] = profile(key, spec, created=age, generation=generation)
    return found


_AGES = st.integers(0, 2)


@st.composite
def histories(draw: st.DrawFn) -> list[World]:
    """Two or three worlds that follow one another: specs, labels and objects come, change and go."""
    ages = draw(st.dictionaries(st.sampled_from(["a/x", "a/y", "b/x", "b/y"]), _AGES, min_size=1, max_size=4))
    profile_ages = draw(st.dictionaries(st.sampled_from(PROFILES), _AGES, max_size=3))
    worlds = []
    for generation in range(1, draw(st.integers(2, 3)) + 1):
        here = {key: age for key, age in ages.items() if draw(st.integers(0, 5))}
        profiles_here = {key: age for key, age in profile_ages.items() if draw(st.integers(0, 3))}
        labels: dict[str, Mapping[str, str]] = {
            name: {"tidegate.dev/platform": "true"} if draw(st.booleans()) else {} for name in NAMESPACES
        }
        worlds.append(world(draw(_policies(here, generation)), draw(_profiles(profiles_here, generation)), labels))
    return worlds


def shuffled(given: World, order: list[str]) -> World:
    """The same world, seen in another order."""

    def again(objects: Mapping[str, Any]) -> dict[str, Any]:
        return dict(sorted(objects.items(), key=lambda each: order.index(each[0]) if each[0] in order else -1))

    return msgspec.structs.replace(given, policies=again(given.policies), profiles=again(given.profiles))

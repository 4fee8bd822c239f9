"""Profiles as ConfigMaps: which, and what is in them."""

from __future__ import annotations

from typing import Any

import yaml

from ratelimit_operator.plan.copies import COPY_KEY, COPY_LABEL, ProfileCopy, copy_name, profile_copies
from ratelimit_operator.plan.live import Live
from ratelimit_operator.plan.planning import plan
from ratelimit_operator.plan.precedence import Contests
from ratelimit_operator.plan.world import ObservedProfile
from ratelimit_service.policy.decode import decode_manifest
from support.plan_worlds import of, profile, world

SECRET = {"store": {"type": "Redis", "endpoints": ["redis:6379"], "auth": {"secretRef": {"name": "login"}}}}


def copies(*profiles: ObservedProfile, before: Live | None = None) -> tuple[dict[str, ProfileCopy], Live]:
    """The ConfigMaps where `a` is a platform namespace and the only one that gets any; the live forms."""
    seen = world({}, of(*profiles), {"a": {"tidegate.dev/platform": "true"}})
    planned = plan(seen, before or Live(), Contests())
    return profile_copies(seen.profiles, planned.profiles, frozenset({"a"}), "blue"), planned.live


def content(copy: ProfileCopy) -> Any:
    """The profile in a ConfigMap."""
    manifest: Any = copy.manifest
    return yaml.safe_load(manifest["data"][COPY_KEY])


def test_a_copy_decodes_to_the_profile_and_belongs_to_it() -> None:
    """The file is what the library reads; labels, owner and namespace say whose it is."""
    given = profile("a/p", {"ttl": "90s", "l1": {"maxEntries": 7}}, uid="one")

    found = copies(given)[0]["a/p"]

    manifest: Any = found.manifest
    decoded, problems = decode_manifest(content(found))
    assert problems == []
    assert decoded is not None
    assert given.manifest is not None
    assert decoded.spec == given.manifest.spec
    assert found.key == "a/tidegate-profile-p"
    assert manifest["metadata"]["labels"] == {COPY_LABEL: "blue"}
    assert [each["uid"] for each in manifest["metadata"]["ownerReferences"]] == ["one"]


def test_only_allowed_namespaces_get_copies() -> None:
    """DECISIONS 49."""
    assert copies(profile("a/p", {}), profile("b/p", {}))[0].keys() == {"a/p"}


def test_the_last_accepted_form_stays_and_one_that_never_was_has_none() -> None:
    """As it does for the service."""
    first, live = copies(profile("a/p", {"ttl": "90s"}))
    broken = profile("a/p", {"ttl": "80s", "l1": {"warningPercent": 90, "criticalPercent": 80}}, generation=2)

    assert copies(broken, before=live)[0] == first
    assert copies(broken)[0] == {}


def test_a_secret_that_the_service_lacks_does_not_matter() -> None:
    """A program mounts its own; only the secret's name is told."""
    found = copies(profile("a/p", SECRET))[0]["a/p"]

    assert content(found)["spec"]["store"]["auth"] == {"secretRef": {"name": "login"}}


def test_the_version_is_of_the_content() -> None:
    """Another object of the same name and spec has the same; another spec has not."""
    one, same, other = (
        copies(profile("a/p", {"ttl": text}, uid=uid))[0]["a/p"].version
        for text, uid in (("90s", "one"), ("90s", "two"), ("80s", "one"))
    )

    assert one == same != other


def test_a_long_name_ends_with_a_hash() -> None:
    """A ConfigMap's name has 253 characters at the most, as a profile's has."""
    long, other = copy_name("p" * 252 + "a"), copy_name("p" * 252 + "b")

    assert copy_name("p" * 236) == f"tidegate-profile-{'p' * 236}"
    assert (len(long), len(other)) == (253, 253)
    assert long != other

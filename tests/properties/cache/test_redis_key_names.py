"""Names of keys in Redis: one for one, and value and lease of a key in one slot of a cluster."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.cache.l2.keys import KeyKind, KeySpace
from ratelimit_service.redis_server.slots import slot_of

SPACE = KeySpace(b"p:")
texts = st.text(st.sampled_from("{}%7DaB25é"), max_size=6)


@given(texts)
@example("")
@example("%")
@example("}")
@example("%7D")
def test_a_name_gives_its_key_back(key: str) -> None:
    """Values, leases and tags."""
    assert SPACE.meaning(SPACE.value(key)) == (KeyKind.VALUE, key)
    assert SPACE.meaning(SPACE.lease(key)) == (KeyKind.LEASE, key)
    assert SPACE.meaning(SPACE.tag(key)) == (KeyKind.TAG, key)


@given(texts)
@example("")
@example("}")
def test_value_and_lease_share_a_slot(key: str) -> None:
    """So that one script may touch both."""
    assert slot_of(SPACE.value(key)) == slot_of(SPACE.lease(key))


def test_other_names_are_told_apart() -> None:
    """The prefixes' key, and what is not the cache's."""
    assert SPACE.meaning(SPACE.prefixes) == (KeyKind.PREFIXES, "")
    assert SPACE.meaning(b"p:else") == (KeyKind.FOREIGN, "")

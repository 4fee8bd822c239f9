"""Laws of store addresses: what is written comes back, and whatever is written, only one error is raised."""

from __future__ import annotations

import contextlib
from urllib.parse import quote

from hypothesis import example, given
from hypothesis import strategies as st

from ratelimit_service.redis_server.address import InvalidStoreAddress, Layout, Secret, parse_store_url

HOSTS = st.lists(st.sampled_from(["a", "b.c", "10.0.0.1", "[::1]"]), min_size=1, max_size=3)
WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
PIECES = ["redis", "rediss", "+sentinel", "+cluster", "://", "@", ":", "/", "?", "&", "=", "%", ",", "a", "7", "[", "]"]


@given(
    layout=st.sampled_from([Layout.SENTINEL, Layout.CLUSTER]),
    hosts=HOSTS,
    user=WORDS,
    password=WORDS,
    port=st.integers(1, 65_535),
)
@example(layout=Layout.CLUSTER, hosts=["[::1]"], user="a:b", password="/?#@%", port=1)
def test_what_is_encoded_comes_back(layout: Layout, hosts: list[str], user: str, password: str, port: int) -> None:
    """User, password, hosts and ports are read as they were meant."""
    master = "/main" if layout is Layout.SENTINEL else ""
    written = ",".join(f"{host}:{port}" for host in hosts)
    address = parse_store_url(f"{layout.value}://{quote(user, safe='')}:{quote(password, safe='')}@{written}{master}")

    assert (address.credentials.user, address.credentials.password) == (user, Secret(password))
    assert [str(endpoint) for endpoint in address.endpoints] == written.split(",")


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=12).map("".join))
@example("redis://[::1")
@example("redis://a:999999999999999999999")
@example("redis+sentinel://a/m/²")
@example("redis://a?pool_size=²")
def test_only_one_error_comes_of_any_text(text: str) -> None:
    """An address is read or refused; nothing else happens."""
    with contextlib.suppress(InvalidStoreAddress):
        parse_store_url(text)

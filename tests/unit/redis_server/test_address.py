"""What people write as `--store`, and what is understood of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelimit_service.redis_server.address import (
    OPTIONS,
    Credentials,
    Endpoint,
    InvalidStoreAddress,
    Layout,
    RedisAddress,
    Secret,
    Tls,
    parse_endpoint,
    parse_store_url,
)

SCHEMES = ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"]


def problems_of(url: str) -> list[str]:
    """What is wrong with an address."""
    with pytest.raises(InvalidStoreAddress) as caught:
        parse_store_url(url)
    return caught.value.problems


def test_a_host_alone_is_enough() -> None:
    """Port, database, user and the rest have defaults."""
    assert parse_store_url("redis://cache") == RedisAddress(layout=Layout.SINGLE, endpoints=(Endpoint("cache", 6379),))


def test_user_password_and_database_are_read() -> None:
    """User and password are percent-decoded."""
    address = parse_store_url("redis://al%2Fice:p%40ss%3A@cache:7000/3")

    assert address.credentials == Credentials("al/ice", Secret("p@ss:"))
    assert (address.endpoints, address.db) == ((Endpoint("cache", 7000),), 3)


def test_a_password_needs_no_user() -> None:
    """`:password@` is the default user's."""
    assert parse_store_url("redis://:secret@cache").credentials == Credentials("", Secret("secret"))


def test_sentinels_name_a_master_and_a_database() -> None:
    """Their own port is the default."""
    address = parse_store_url("redis+sentinel://a,b:7001,[::1]:7002/main/2?sentinel_user=s&sentinel_password=t")

    assert address.layout is Layout.SENTINEL
    assert address.endpoints == (Endpoint("a", 26379), Endpoint("b", 7001), Endpoint("::1", 7002))
    assert (address.master_name, address.db) == ("main", 2)
    assert address.sentinel_credentials == Credentials("s", Secret("t"))


def test_a_cluster_has_several_members() -> None:
    """Some members are enough; the others are learnt."""
    address = parse_store_url("redis+cluster://a:1,b:2")

    assert (address.layout, address.endpoints) == (Layout.CLUSTER, (Endpoint("a", 1), Endpoint("b", 2)))


@pytest.mark.parametrize("scheme", ["rediss", "rediss+sentinel", "rediss+cluster"])
def test_a_second_s_means_tls(scheme: str) -> None:
    """The certificate is checked unless told otherwise."""
    path = "/main" if "sentinel" in scheme else ""

    assert parse_store_url(f"{scheme}://cache{path}").tls == Tls()


def test_tls_options_name_files() -> None:
    """Authority, client certificate, server name and leave to skip the check."""
    address = parse_store_url("rediss://cache?ca=/ca&cert=/cert&key=/key&skip_verify=true&server_name=redis.local")

    assert address.tls == Tls(
        verify=False, ca_file=Path("/ca"), cert_file=Path("/cert"), key_file=Path("/key"), server_name="redis.local"
    )


def test_the_other_options_are_read() -> None:
    """Prefix, pool and timeouts."""
    address = parse_store_url(
        "redis://cache?key_prefix=shop:&pool_size=4&connect_timeout=1s&command_timeout=2500us&password_file=/secret"
    )

    assert (address.key_prefix, address.pool_size) == (b"shop:", 4)
    assert (address.connect_us, address.command_us) == (1_000_000, 2_500)
    assert address.credentials.password_file == Path("/secret")


def test_every_problem_is_named_at_once() -> None:
    """Nobody has to start the service once per mistake."""
    assert problems_of(
        "redis://a:0,b/x/y?pool_size=0&colour=red&key_prefix=&pool_size=1"
        "&ca=/ca&sentinel_user=u&skip_verify=yes&command_timeout=1h"
    ) == [
        f"unknown option 'colour'; known are {', '.join(OPTIONS)}",
        "option key_prefix has no value",
        "option pool_size is given twice",
        "'a:0' has no port from 1 to 65535",
        "only the number of a database stands at the end of the path",
        "'x' is no database; it is a number from 0 to 65535",
        "ca, skip_verify only with TLS: write rediss instead of redis",
        "pool_size is a number from 1 to 64",
        "command_timeout is a duration such as 8ms, from 1ms to 60s",
        "sentinel_user only with redis+sentinel://",
    ]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("cache:6379", "a store's address begins with redis://, rediss:// or one of their variants"),
        (
            "valkey://cache",
            "valkey:// is no kind of store; known are " + ", ".join(f"{scheme}://" for scheme in SCHEMES),
        ),
        ("redis://", "no host is given"),
        ("redis://a,b", "redis:// has one host; several go with redis+sentinel:// and redis+cluster://"),
        ("redis://a b", "'a b' is not HOST:PORT or [IPV6]:PORT"),
        ("redis+sentinel://a", "redis+sentinel:// needs the master's name: …/MASTER"),
        ("redis+cluster://a/1", "a cluster has no database: nothing stands after its hosts"),
        ("rediss://a?cert=/c", "cert and key go together"),
        ("rediss://a?skip_verify=yes", "skip_verify is true or false"),
        ("redis://a/65536", "'65536' is no database; it is a number from 0 to 65535"),
        ("redis://user@a", "a user goes with a password: user:password@host, or password_file"),
        ("redis://:x@a?password_file=/f", "a password is given twice, in the address and as password_file"),
        ("redis://a?key_prefix={x}", "key_prefix has no {: all keys would share one slot of a cluster"),
        (f"redis://a?key_prefix={'x' * 65}", "key_prefix has at most 64 bytes"),
    ],
)
def test_a_mistake_is_answered_with_what_is_right(url: str, problem: str) -> None:
    """The message names the part and says what to write."""
    assert problems_of(url) == [problem]


@pytest.mark.parametrize(
    "url", ["redis://u:hun@ter2@a", "redis://u:hun/ter2@a", "redis://u:hun?ter2@a", "redis://u:hun#ter2@a"]
)
def test_a_password_that_is_not_encoded_never_shows(url: str) -> None:
    """The message says what to encode, and nothing of the password."""
    (problem,) = problems_of(url)

    assert "%40" in problem
    assert "hun" not in problem
    assert "ter2" not in problem


def test_secrets_are_in_no_text_of_an_address() -> None:
    """Neither repr nor str show user's words."""
    address = parse_store_url("rediss+sentinel://u:hunter2@a/main/1?sentinel_password=hunter3")

    assert "hunter" not in repr(address) + str(address)
    assert str(address) == "rediss+sentinel://a:26379/main/1"
    assert repr(Secret("hunter2")) == "Secret('***')"


def test_a_secret_is_equal_to_the_same_secret() -> None:
    """Addresses with secrets can be compared and kept in sets."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert (bool(Secret("")), bool(Secret("a"))) == (False, True)


def test_a_password_file_is_read_at_every_look(tmp_path: Path) -> None:
    """A password that is rotated needs no restart; the white space around it is not part of it."""
    file = tmp_path / "password"
    credentials = Credentials("u", password_file=file, user_file=None)
    file.write_text("one\n")
    first = credentials.read()
    file.write_text(" two ")

    assert (first, credentials.read()) == (("u", "one"), ("u", "two"))


def test_a_user_file_wins_over_a_user(tmp_path: Path) -> None:
    """A Secret's `username` is the user."""
    (tmp_path / "username").write_text("alice")

    assert Credentials("bob", user_file=tmp_path / "username").read() == ("alice", "")


def test_an_endpoint_shows_as_it_is_written() -> None:
    """IPv6 has its brackets."""
    assert [str(parse_endpoint(text)) for text in ("a:1", "[::1]:2", "[::1]", "a")] == [
        "a:1",
        "[::1]:2",
        "[::1]:6379",
        "a:6379",
    ]

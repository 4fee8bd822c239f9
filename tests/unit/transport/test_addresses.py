"""Addresses of listeners."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelimit_service.transport.addresses import CannotListen, require_free, unix_path, with_port


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "HOST:PORT"),
        ("127.0.0.1:http", "HOST:PORT"),
        ("127.0.0.1:65536", "0 to 65535"),
        ("192.0.2.1:0", "Cannot assign requested address"),
        ("unix:", "empty"),
        ("unix:/nowhere/at/all.sock", "no such folder"),
        ("unix:/dev/null", "no socket"),
    ],
)
def test_an_address_that_cannot_be_bound_is_refused_with_its_reason(address: str, reason: str) -> None:
    """The error names the address and what the system says."""
    with pytest.raises(CannotListen) as caught:
        require_free(address)

    assert caught.value.address == address
    assert reason in caught.value.reason


def test_a_host_that_is_no_address_is_refused() -> None:
    """Errors of name resolution have numbers of their own."""
    with pytest.raises(CannotListen, match=r"cannot listen on 1\.2\.3\.4\.5:1: "):
        require_free("1.2.3.4.5:1")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", ":0"])
def test_a_free_address_passes(address: str) -> None:
    """IPv4, IPv6 and every interface."""
    require_free(address)


def test_a_path_where_nothing_is_passes(tmp_path: Path) -> None:
    """Whoever binds makes the file."""
    require_free(f"unix:{tmp_path}/free.sock")


def test_real_ports_replace_configured_ones() -> None:
    """A Unix socket has none."""
    assert with_port("[::1]:0", 7) == "[::1]:7"
    assert with_port("unix:/a", 7) == "unix:/a"
    assert unix_path("unix:/a") == "/a"
    assert unix_path("h:1") is None

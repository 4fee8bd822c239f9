"""Addresses of `--grpc` and `--admin`."""

from __future__ import annotations

import pytest

from ratelimit_service.addresses import Address, InvalidAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8081", Address(host="127.0.0.1", port=8081)),
        ("localhost:0", Address(host="localhost", port=0)),
        (":65535", Address(host="0.0.0.0", port=65535)),
        ("[::1]:8081", Address(host="::1", port=8081)),
        ("unix:/run/tidegate.sock", Address(unix_path="/run/tidegate.sock")),
    ],
)
def test_every_form_of_an_address_is_read(text: str, address: Address) -> None:
    """Host and port, every interface, IPv6 in brackets, and the path of a socket."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "8081", "localhost", "localhost:", "localhost:http", "localhost:65536", "::1:80", "a:²", "unix:"]
)
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    """The message quotes the text, so that it can be found among many flags."""
    with pytest.raises(InvalidAddress, match="unix:PATH") as caught:
        parse_address(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["127.0.0.1:8081", "[::1]:8081", "unix:/run/x.sock"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    """What is printed can be pasted into a flag again."""
    assert str(parse_address(text)) == text

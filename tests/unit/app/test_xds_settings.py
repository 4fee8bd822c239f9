"""An operator as the source of policies: flags, environment, and everything that can be wrong with them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ratelimit_service.addresses import Address
from ratelimit_service.assembly.transports import TRANSPORTS
from ratelimit_service.flags import environment_texts
from ratelimit_service.settings import InvalidSettings, ServeSettings, decode_settings
from ratelimit_service.xds_address import InvalidXdsAddress, XdsAddress, parse_servers


def decoded(environment: dict[str, str] | None = None, **texts: str) -> ServeSettings:
    values = {
        **environment_texts(environment or {}),
        **{f"--{name.replace('_', '-')}": (text,) for name, text in texts.items()},
    }
    return decode_settings(values, TRANSPORTS)


def problems_of(**texts: str | tuple[str, ...]) -> tuple[str, ...]:
    values = {f"--{name.replace('_', '-')}": (text,) if isinstance(text, str) else text for name, text in texts.items()}
    with pytest.raises(InvalidSettings) as caught:
        decode_settings(values, TRANSPORTS)
    return caught.value.problems


def test_an_address_alone_is_enough() -> None:
    """In the clear, as the host's own name, with nothing kept."""
    settings = decoded(policies="xds://operator:18002")

    assert settings.policies == ()
    assert settings.xds == XdsAddress((Address("operator", 18002),), socket.gethostname())
    assert not settings.xds.is_secure


def test_everything_can_be_said(tmp_path: Path) -> None:
    """Several servers, a name, three files, two folders."""
    for name in ("ca", "crt", "key"):
        (tmp_path / name).write_text(name)
    settings = decoded(
        policies="xds://a:1,[::1]:2",
        xds_node="pod-1",
        xds_type="envoyproxy",
        xds_ca=str(tmp_path / "ca"),
        xds_cert=str(tmp_path / "crt"),
        xds_key=str(tmp_path / "key"),
        xds_server_name="operator",
        xds_snapshot="/kept",
        xds_bootstrap="/boot",
    )

    assert settings.xds == XdsAddress(
        servers=(Address("a", 1), Address("::1", 2)),
        node="pod-1",
        resources="envoyproxy",
        ca=str(tmp_path / "ca"),
        cert=str(tmp_path / "crt"),
        key=str(tmp_path / "key"),
        server_name="operator",
        snapshot="/kept",
        bootstrap="/boot",
    )
    assert settings.xds.is_secure


def test_an_operator_by_environment_is_not_parted_at_its_colons() -> None:
    """Paths are, in the same variable."""
    settings = decoded({"TIDEGATE_POLICIES": "xds://operator:18002", "TIDEGATE_XDS_NODE": "pod-1"})

    assert settings.xds == XdsAddress((Address("operator", 18002),), "pod-1")
    assert environment_texts({"TIDEGATE_POLICIES": "/a:/b"}) == {"--policies": ("/a", "/b")}


def test_the_environment_of_envoy_gateway_is_understood(tmp_path: Path) -> None:
    """It starts envoyproxy/ratelimit with these; our own flags win over them."""
    environment = {
        "CONFIG_TYPE": "GRPC_XDS_SOTW",
        "CONFIG_GRPC_XDS_SERVER_URL": "envoy-gateway:18001",
        "CONFIG_GRPC_XDS_NODE_ID": "envoy-ratelimit",
    }

    assert decoded(environment).xds == XdsAddress((Address("envoy-gateway", 18001),), "envoy-ratelimit", "envoyproxy")
    for name in ("ca", "crt", "key"):
        (tmp_path / name).write_text(name)
    files = {
        "CONFIG_GRPC_XDS_SERVER_TLS_CACERT": str(tmp_path / "ca"),
        "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": str(tmp_path / "crt"),
        "CONFIG_GRPC_XDS_CLIENT_TLS_KEY": str(tmp_path / "key"),
        "CONFIG_GRPC_XDS_SERVER_TLS_SAN": "envoy-gateway",
    }
    secure = decoded({**environment, **files, "CONFIG_GRPC_XDS_SERVER_USE_TLS": "true"}).xds
    assert secure is not None
    assert secure.is_secure
    assert (secure.cert, secure.server_name) == (str(tmp_path / "crt"), "envoy-gateway")
    clear = decoded({**environment, **files}).xds
    assert clear is not None
    assert not clear.is_secure
    assert decoded({"CONFIG_TYPE": "GRPC_XDS_SOTW"}).xds == XdsAddress(
        (Address("localhost", 18000),), socket.gethostname(), "envoyproxy"
    )
    assert decoded(environment, policies=__file__).xds is None


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Each with its flag."""
    (tmp_path / "crt").write_text("x")
    told = problems_of(policies=("xds://nowhere,:1,b:0", "more"), xds_cert=str(tmp_path / "crt"), xds_type="other")

    assert told == (
        "--policies: an operator is the only source of policies; name it alone",
        "--policies: 'nowhere' is not an address; write HOST:PORT, [IPV6]:PORT or unix:PATH",
        "--policies: ':1' names no server; write xds://HOST:PORT",
        "--policies: 'b:0' names no server; write xds://HOST:PORT",
        "--xds-type: 'other' is none of tidegate, envoyproxy",
        "--xds-ca: is needed with --xds-cert: the operator is trusted by its CA",
        "--xds-key: certificate and key go together",
    )


def test_a_key_without_its_certificate_is_told(tmp_path: Path) -> None:
    """The other half of the pair."""
    (tmp_path / "key").write_text("x")

    assert problems_of(policies="xds://a:1", xds_key=str(tmp_path / "key")) == (
        "--xds-cert: certificate and key go together",
    )


def test_flags_of_the_stream_need_a_stream() -> None:
    """They would be silently without effect."""
    assert problems_of(policies=__file__, xds_snapshot="/kept") == (
        "--xds-snapshot: goes with --policies xds://HOST:PORT",
    )


def test_a_socket_is_no_server() -> None:
    """Operators are elsewhere."""
    with pytest.raises(InvalidXdsAddress, match="names no server"):
        parse_servers("xds://unix:/run/x")

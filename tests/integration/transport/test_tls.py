"""TLS and mTLS over real handshakes."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import grpc
import grpc.aio
import pytest

from ratelimit_service.transport.client import CallFailed, RateLimitClient, ask
from ratelimit_service.transport.grpcio import _CertificateSource
from ratelimit_service.transport.tls import ClientTls, IdentityFiles, InvalidTls, TlsSettings, read_identity
from ratelimit_service.wire.grpc.status import GrpcCode
from support.certificates import Authority
from support.deciders import ValueDecider, request_for
from support.transports import TRANSPORTS, WATCH, Factory, on_loop, serving

X = request_for(b"x")


@pytest.fixture(params=TRANSPORTS)
def make(request: pytest.FixtureRequest) -> Factory:
    return TRANSPORTS[request.param]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def _server(authority: Authority, *, mutual: bool = False, sans: tuple[str, ...] = ()) -> TlsSettings:
    cert, key = authority.issue("server")
    return TlsSettings(cert, key, authority.ca_path if mutual else None, sans)


def _client(authority: Authority, issuer: Authority, *, dns: str = "envoy.mesh", expired: bool = False) -> ClientTls:
    cert, key = issuer.issue("client", dns=dns, expired=expired)
    return ClientTls(authority.ca_path, cert, key)


async def _refused(target: str, tls: ClientTls | None) -> GrpcCode:
    with pytest.raises(CallFailed) as caught:
        await ask(target, X, 3, tls)
    return caught.value.code


@on_loop
async def test_a_client_that_trusts_the_authority_is_served(make: Factory, authority: Authority) -> None:
    """TLS on TCP; a second authority, a wrong name and plain text are refused."""
    other = Authority(authority.ca_path.parent, "other")
    async with serving(make, ValueDecider(), tls=_server(authority)) as transport:
        target = transport.addresses[0]

        assert not (await ask(target, X, 5, ClientTls(authority.ca_path))).over
        assert not (await ask(target, X, 5, ClientTls(authority.ca_path, server_name="localhost"))).over
        assert await _refused(target, ClientTls(other.ca_path)) is GrpcCode.UNAVAILABLE
        assert await _refused(target, ClientTls(authority.ca_path, server_name="a.b")) is GrpcCode.UNAVAILABLE
        assert await _refused(target, None) is GrpcCode.UNAVAILABLE


@on_loop
async def test_mutual_tls_takes_only_good_certificates_of_the_authority(make: Factory, authority: Authority) -> None:
    """None at all, one of another authority and an expired one fail the handshake."""
    other = Authority(authority.ca_path.parent, "other")
    async with serving(make, ValueDecider(), tls=_server(authority, mutual=True)) as transport:
        target = transport.addresses[0]

        assert not (await ask(target, X, 5, _client(authority, authority))).over
        assert await _refused(target, ClientTls(authority.ca_path)) is GrpcCode.UNAVAILABLE
        assert await _refused(target, _client(authority, other)) is GrpcCode.UNAVAILABLE
        assert await _refused(target, _client(authority, authority, expired=True)) is GrpcCode.UNAVAILABLE


@on_loop
async def test_the_allow_list_compares_whole_names(make: Factory, authority: Authority) -> None:
    """A listed SAN is served; another, and one that only contains it, get PERMISSION_DENIED on every method."""
    tls = _server(authority, mutual=True, sans=("envoy.mesh", "second.mesh"))
    async with serving(make, ValueDecider(), tls=tls) as transport:
        target = transport.addresses[0]

        assert not (await ask(target, X, 5, _client(authority, authority, dns="second.mesh"))).over
        for dns in ("other.mesh", "envoy.mesh.evil", "evil.envoy.mesh"):
            assert await _refused(target, _client(authority, authority, dns=dns)) is GrpcCode.PERMISSION_DENIED


@on_loop
async def test_the_allow_list_holds_for_streams_too(make: Factory, authority: Authority) -> None:
    """Health Watch is served to a listed name and refused to another."""
    server = _server(authority, mutual=True, sans=("envoy.mesh",))
    async with serving(make, ValueDecider(), tls=server) as transport:
        async with _channel(transport.addresses[0], authority, "envoy.mesh") as channel:
            served = await channel.unary_stream(WATCH)(b"").read()
        async with _channel(transport.addresses[0], authority, "other.mesh") as channel:
            refused = await channel.unary_stream(WATCH)(b"").code()

    assert served == b"\x08\x01"
    assert refused is grpc.StatusCode.PERMISSION_DENIED


def _channel(target: str, authority: Authority, dns: str) -> grpc.aio.Channel:
    cert, key = authority.issue("client", dns=dns)
    ca, key_pem, chain = (path.read_bytes() for path in (authority.ca_path, key, cert))
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca, key_pem, chain))


@on_loop
async def test_replaced_files_are_served_without_a_restart(
    make: Factory, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """New connections see the new certificate; a mismatched pair in between is not taken and is logged."""
    settings = _server(authority)
    async with serving(make, ValueDecider(), tls=settings) as transport:
        host, _, port = transport.addresses[0].rpartition(":")
        async with RateLimitClient(transport.addresses[0], ClientTls(authority.ca_path)) as old:
            await old.ask(X, 5)
            before = await _shown(host, int(port))
            new_cert, new_key = authority.issue("new")
            new_cert.replace(settings.cert_path)
            half_way = await _shown(host, int(port))
            new_key.replace(settings.key_path)
            after = await _shown(host, int(port))

            assert not (await old.ask(X, 5)).over
    assert before == half_way != after
    assert "are no pair" in caplog.text


async def _shown(host: str, port: int) -> str:
    return await asyncio.to_thread(ssl.get_server_certificate, (host, port))


def test_files_that_vanish_leave_the_last_good_set(authority: Authority) -> None:
    """A missing file is an error on the next look, and the identity stays."""
    settings = _server(authority)
    files = IdentityFiles(settings)
    identity = files.identity
    settings.key_path.unlink()

    with pytest.raises(InvalidTls, match=r"server\.key"):
        files.refresh()
    assert identity is files.identity
    assert _CertificateSource(files).fetch() is None


def test_files_that_did_not_change_are_not_read_again(authority: Authority) -> None:
    """A look without a change gives nothing new, one after a replacement gives the new pair once."""
    settings = _server(authority)
    files = IdentityFiles(settings)
    source = _CertificateSource(files)
    before = source.fetch()
    cert, key = authority.issue("new")
    cert.replace(settings.cert_path)
    key.replace(settings.key_path)

    assert before is None
    assert source.fetch() is not None
    assert source.fetch() is None
    assert files.identity.cert_chain == settings.cert_path.read_bytes()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda tls: tls.cert_path.unlink(), "server.crt: No such file"),
        (lambda tls: tls.cert_path.write_text("no"), "are no pair"),
        (lambda tls: tls.client_ca_path.unlink(), "ca.pem: No such file"),
        (lambda tls: tls.client_ca_path.write_text("no"), "no PEM certificates"),
    ],
)
def test_bad_files_are_named_before_anything_is_bound(authority: Authority, spoil, words: str) -> None:
    """Missing, garbled and mismatched files refuse the construction."""
    tls = _server(authority, mutual=True)
    spoil(tls)

    with pytest.raises(InvalidTls) as caught:
        read_identity(tls)
    assert words in str(caught.value)


def test_an_allow_list_needs_an_authority(authority: Authority) -> None:
    """Names that nobody signed prove nothing."""
    with pytest.raises(InvalidTls):
        _server(authority, sans=("a",))


def test_a_file_without_pem_is_said_to_be_so(authority: Authority) -> None:
    """OpenSSL gives no reason of its own for it."""
    settings = _server(authority)
    settings.cert_path.write_text("no")

    with pytest.raises(InvalidTls, match="one of them holds no PEM of its kind"):
        read_identity(settings)


def test_a_client_is_told_of_files_that_do_not_fit(authority: Authority) -> None:
    """Before anything is dialled."""
    cert, _ = authority.issue("client")
    _, other_key = authority.issue("other")

    with pytest.raises(InvalidTls, match="are no pair"):
        RateLimitClient("127.0.0.1:1", ClientTls(authority.ca_path, cert, other_key))


def test_a_client_names_the_file_that_it_cannot_read(tmp_path: Path) -> None:
    """InvalidTls with the path."""
    with pytest.raises(InvalidTls, match="gone"):
        RateLimitClient("127.0.0.1:1", ClientTls(tmp_path / "gone"))

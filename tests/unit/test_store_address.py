"""A profile's store becomes an address, its Secrets files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratelimit_service.policy.profile_model import (
    SecretKeyRef,
    SecretRef,
    StoreAuth,
    StoreSpec,
    StoreTimeouts,
    StoreTls,
    StoreType,
    TlsMode,
)
from ratelimit_service.redis_server.address import Credentials, Endpoint, InvalidStoreAddress, Layout, RedisAddress, Tls
from ratelimit_service.store_address import from_profile

NOTHING = Path("/nothing")


def test_what_is_not_written_has_defaults() -> None:
    """As an address without options."""
    spec = StoreSpec(type=StoreType.REDIS, endpoints=("cache:6379",))

    assert from_profile(spec, NOTHING) == RedisAddress(layout=Layout.SINGLE, endpoints=(Endpoint("cache", 6379),))


def test_everything_is_taken_over(tmp_path: Path) -> None:
    """Endpoints, master, database, login, TLS, timeouts and prefix; secrets stay files."""
    for name in ("login/username", "login/password", "client/tls.crt", "client/tls.key", "authority/root.pem"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    spec = StoreSpec(
        type=StoreType.REDIS_SENTINEL,
        endpoints=("a:1", "[::1]:2"),
        master_name="main",
        database=3,
        auth=StoreAuth(secret_ref=SecretRef(name="login")),
        tls=StoreTls(
            mode=TlsMode.VERIFY,
            ca_ref=SecretKeyRef(name="authority", key="root.pem"),
            client_cert_ref=SecretRef(name="client"),
            server_name="redis.local",
        ),
        timeouts=StoreTimeouts(connect_us=1_000_000, command_us=5_000),
        key_prefix="shop:",
    )
    login = Credentials(user_file=tmp_path / "login/username", password_file=tmp_path / "login/password")

    assert from_profile(spec, tmp_path) == RedisAddress(
        layout=Layout.SENTINEL,
        endpoints=(Endpoint("a", 1), Endpoint("::1", 2)),
        master_name="main",
        db=3,
        credentials=login,
        sentinel_credentials=login,
        tls=Tls(
            verify=True,
            ca_file=tmp_path / "authority/root.pem",
            cert_file=tmp_path / "client/tls.crt",
            key_file=tmp_path / "client/tls.key",
            server_name="redis.local",
        ),
        key_prefix=b"shop:",
        connect_us=1_000_000,
        command_us=5_000,
    )


def test_a_secret_without_a_user_is_the_default_users(tmp_path: Path) -> None:
    """`username` may be missing."""
    (tmp_path / "login").mkdir()
    (tmp_path / "login/password").write_text("x")
    spec = StoreSpec(type=StoreType.REDIS, endpoints=("a:1",), auth=StoreAuth(secret_ref=SecretRef(name="login")))

    assert from_profile(spec, tmp_path).credentials == Credentials(password_file=tmp_path / "login/password")


@pytest.mark.parametrize(("mode", "tls"), [(TlsMode.DISABLE, None), (TlsMode.SKIP_VERIFY, Tls(verify=False))])
def test_tls_is_as_its_mode_says(mode: TlsMode, tls: Tls | None) -> None:
    """Off, or on without a check."""
    spec = StoreSpec(type=StoreType.REDIS_CLUSTER, endpoints=("a:1",), tls=StoreTls(mode=mode))

    assert (from_profile(spec, NOTHING).layout, from_profile(spec, NOTHING).tls) == (Layout.CLUSTER, tls)


def test_every_problem_is_named_at_once() -> None:
    """Endpoints that are none, and each file that is not mounted."""
    spec = StoreSpec(
        type=StoreType.REDIS,
        endpoints=("a:99999",),
        auth=StoreAuth(secret_ref=SecretRef(name="login")),
        tls=StoreTls(mode=TlsMode.VERIFY, ca_ref=SecretKeyRef(name="authority"), client_cert_ref=SecretRef(name="own")),
    )
    with pytest.raises(InvalidStoreAddress) as caught:
        from_profile(spec, NOTHING)

    assert caught.value.problems == [
        "'a:99999' has no port from 1 to 65535",
        "/nothing/login/password is missing: is the Secret mounted?",
        "/nothing/own/tls.crt is missing: is the Secret mounted?",
        "/nothing/own/tls.key is missing: is the Secret mounted?",
        "/nothing/authority/ca.crt is missing: is the Secret mounted?",
    ]

"""The address of the Redis that a CacheProfile names; secrets are files that the chart has mounted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ratelimit_service.policy.profile_model import SecretKeyRef, StoreSpec, StoreTls, StoreType, TlsMode
from ratelimit_service.redis_server.address import (
    DEFAULT_COMMAND_US,
    DEFAULT_CONNECT_US,
    Credentials,
    Endpoint,
    InvalidStoreAddress,
    Layout,
    RedisAddress,
    Tls,
    parse_endpoint,
)

__all__ = ["from_profile"]

_LAYOUTS: Final[Mapping[StoreType, Layout]] = {
    StoreType.REDIS: Layout.SINGLE,
    StoreType.REDIS_SENTINEL: Layout.SENTINEL,
    StoreType.REDIS_CLUSTER: Layout.CLUSTER,
}
_CA_KEY: Final = "ca.crt"


def from_profile(spec: StoreSpec, secrets_dir: Path) -> RedisAddress:
    """The address of a profile's store, which is not Memory.

    A Secret's key is the file `secrets_dir/NAME/KEY`. User and password are read at every connection, `username` only
    if that file is there; sentinels are logged in to as the servers are.

    Raises:
        InvalidStoreAddress: With all that is wrong: what the schema cannot see, and files that are missing.
    """
    problems: list[str] = []
    endpoints: list[Endpoint] = []
    for text in spec.endpoints:
        try:
            endpoints.append(parse_endpoint(text))
        except ValueError as error:
            problems.append(str(error))
    credentials = Credentials()
    if spec.auth is not None:
        folder = secrets_dir / spec.auth.secret_ref.name
        user_file = folder / "username"
        credentials = Credentials(
            user_file=user_file if user_file.is_file() else None,
            password_file=_present(folder / "password", problems),
        )
    tls = None
    if spec.tls is not None and spec.tls.mode is not TlsMode.DISABLE:
        tls = _tls(spec.tls, secrets_dir, problems)
    if problems:
        raise InvalidStoreAddress(problems)
    timeouts = spec.timeouts
    return RedisAddress(
        layout=_LAYOUTS[spec.type],
        endpoints=tuple(endpoints),
        master_name=spec.master_name or "",
        db=spec.database or 0,
        credentials=credentials,
        sentinel_credentials=credentials,
        tls=tls,
        key_prefix=(spec.key_prefix or "").encode(),
        connect_us=DEFAULT_CONNECT_US if timeouts is None else timeouts.connect_us,
        command_us=DEFAULT_COMMAND_US if timeouts is None else timeouts.command_us,
    )


def _tls(tls: StoreTls, secrets_dir: Path, problems: list[str]) -> Tls:
    cert_file = key_file = None
    if tls.client_cert_ref is not None:
        folder = secrets_dir / tls.client_cert_ref.name
        cert_file, key_file = _present(folder / "tls.crt", problems), _present(folder / "tls.key", problems)
    return Tls(
        verify=tls.mode is TlsMode.VERIFY,
        ca_file=None if tls.ca_ref is None else _present(_key_file(tls.ca_ref, secrets_dir), problems),
        cert_file=cert_file,
        key_file=key_file,
        server_name=tls.server_name or "",
    )


def _key_file(ref: SecretKeyRef, secrets_dir: Path) -> Path:
    return secrets_dir / ref.name / (ref.key or _CA_KEY)


def _present(path: Path, problems: list[str]) -> Path:
    if not path.is_file():
        problems.append(f"{path} is missing: is the Secret mounted?")
    return path

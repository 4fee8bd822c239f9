"""TLS files of a gRPC server or client, read again when they change.

A certificate manager replaces files while the process runs. They are looked at for each new connection (a
`stat` each), and a set that does not fit together, such as a new certificate beside the old key in the middle of a
replacement, is not taken: the last good one stays.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from ratelimit_service.errors import TidegateError


class InvalidTls(TidegateError):
    """TLS files that cannot be read or do not fit together; the message names the file."""


class TlsSettings(msgspec.Struct, frozen=True):
    """PEM files of a TLS server.

    Attributes:
        cert_path: Certificate chain, the server's own first.
        key_path: Its private key, without a passphrase.
        client_ca_path: CAs of which a client must show a certificate; None: clients show none.
        client_sans: Subject alternative names (DNS, URI, IP) of which a client's certificate must carry one,
            compared whole; empty: any client of the CA. Needs `client_ca_path`.

    Raises:
        InvalidTls: `client_sans` without `client_ca_path`; raised on construction.
    """

    cert_path: Path
    key_path: Path
    client_ca_path: Path | None = None
    client_sans: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.client_sans and self.client_ca_path is None:
            raise InvalidTls("an allow-list of client names needs the CA that signs them")


class ClientTls(msgspec.Struct, frozen=True):
    """PEM files of a TLS client.

    Attributes:
        ca_path: CAs that the server's certificate must come from; None: the system's.
        cert_path: The client's own certificate chain for mTLS, together with `key_path`.
        key_path: Its private key.
        server_name: Name to expect in the server's certificate instead of the host asked.
    """

    ca_path: Path | None = None
    cert_path: Path | None = None
    key_path: Path | None = None
    server_name: str | None = None


class Identity(msgspec.Struct, frozen=True):
    """The contents of one good set of TLS files."""

    cert_chain: bytes
    key: bytes
    client_ca: bytes | None


_Stamp = tuple[tuple[int, int, int], ...]


class IdentityFiles:
    """Reads `TlsSettings` once, and again whenever a file has been replaced.

    Raises:
        InvalidTls: The files are not good; raised on construction, never later.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._paths = [settings.cert_path, settings.key_path]
        if settings.client_ca_path is not None:
            self._paths.append(settings.client_ca_path)
        self._seen = self._stamp()
        self.identity = read_identity(settings)

    def refresh(self) -> Identity | None:
        """Return the new identity if the files changed into a good set since the last call, else None.

        Raises:
            InvalidTls: They changed and do not fit together; the last identity stays, and the next call looks again
                only when they change once more.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        self.identity = read_identity(self._settings)
        return self.identity

    def _stamp(self) -> _Stamp:
        try:
            stats = [path.stat() for path in self._paths]
        except OSError as error:
            raise InvalidTls(f"{error.filename}: {error.strerror}") from error
        return tuple((found.st_ino, found.st_mtime_ns, found.st_size) for found in stats)


def read_identity(settings: TlsSettings) -> Identity:
    """Read and check the files.

    Raises:
        InvalidTls: One is missing or no PEM, or certificate and key do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert_chain, key = _read_pair(context, settings.cert_path, settings.key_path)
    client_ca = None if settings.client_ca_path is None else _read_ca(context, settings.client_ca_path)
    return Identity(cert_chain, key, client_ca)


def read_client_files(tls: ClientTls) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Read and check a client's files: CAs, private key and certificate chain, each None where it was not given.

    Raises:
        InvalidTls: One is missing or no PEM, or certificate and key do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca = None if tls.ca_path is None else _read_ca(context, tls.ca_path)
    if tls.cert_path is None or tls.key_path is None:
        return ca, None, None
    cert_chain, key = _read_pair(context, tls.cert_path, tls.key_path)
    return ca, key, cert_chain


def _read_pair(context: ssl.SSLContext, cert_path: Path, key_path: Path) -> tuple[bytes, bytes]:
    try:
        cert_chain, key = cert_path.read_bytes(), key_path.read_bytes()
        # The empty passphrase makes an encrypted key an error instead of a prompt on the terminal.
        context.load_cert_chain(cert_path, key_path, password="")
    except ssl.SSLError as error:
        # OpenSSL gives no reason for a file without any PEM block.
        reason = error.reason or "one of them holds no PEM of its kind"
        raise InvalidTls(f"{cert_path} and {key_path} are no pair: {reason}") from error
    except OSError as error:
        raise InvalidTls(f"{error.filename or cert_path}: {error.strerror}") from error
    return cert_chain, key


def _read_ca(context: ssl.SSLContext, path: Path) -> bytes:
    try:
        content = path.read_bytes()
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise InvalidTls(f"{path}: no PEM certificates: {error.reason}") from error
    except OSError as error:
        raise InvalidTls(f"{path}: {error.strerror}") from error
    return content


def carries_allowed_name(names: Iterable[bytes], allowed: Collection[bytes]) -> bool:
    """Return whether a certificate with these subject alternative names is on the allow-list."""
    return any(name in allowed for name in names)

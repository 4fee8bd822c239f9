"""TLS of the ADS server: clients show a certificate, files are read again when they are replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import msgspec

from ratelimit_service.errors import TidegateError


class InvalidTlsFiles(TidegateError):
    """TLS files that cannot be read; the message names the file."""


class ServerTls(msgspec.Struct, frozen=True):
    """PEM files of the server.

    Attributes:
        cert: Certificate chain, the server's own first.
        key: Its private key.
        client_ca: CAs of which every client must show a certificate.
        client_sans: Subject alternative names (DNS, URI) of which a client's certificate must carry one, compared
            whole; empty: any client of the CA.
    """

    cert: Path
    key: Path
    client_ca: Path
    client_sans: tuple[str, ...] = ()


def server_credentials(tls: ServerTls, told: Callable[[str], None]) -> grpc.ServerCredentials:
    """Credentials that follow the files.

    Args:
        tls: The files.
        told: Is told when a replacement cannot be read; the last good one stays.

    Raises:
        InvalidTlsFiles: They cannot be read now.
    """
    first = _read(tls)
    last = first

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        # Called on a thread of gRPC's for each connection; None keeps what there is.
        nonlocal last
        try:
            found = _read(tls)
        except InvalidTlsFiles as error:
            told(str(error))
            return None
        if found == last:
            return None
        last = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(_configuration(first), fetch, require_client_authentication=True)


def carries_name(auth: dict[str, list[bytes]], allowed: tuple[str, ...]) -> bool:
    """Whether a client's certificate (gRPC's `auth_context`) is on the allow-list."""
    names = auth.get("x509_subject_alternative_name", [])
    return not allowed or any(name.encode() in names for name in allowed)


def _read(tls: ServerTls) -> tuple[bytes, bytes, bytes]:
    try:
        return tls.cert.read_bytes(), tls.key.read_bytes(), tls.client_ca.read_bytes()
    except OSError as error:
        raise InvalidTlsFiles(f"{error.filename}: {error.strerror}") from error


def _configuration(files: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    cert, key, client_ca = files
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=client_ca)

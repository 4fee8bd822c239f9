"""TLS for the native transport: one `SSLContext` that takes up replaced files at the next handshake."""

from __future__ import annotations

import logging
import ssl
from typing import Final

from ratelimit_service.transport.tls import IdentityFiles, InvalidTls, TlsSettings, carries_allowed_name

_LOG: Final = logging.getLogger(__name__)
_ALPN: Final = "h2"
# What HTTP/2 leaves of TLS 1.2 (RFC 9113 §9.2.2): ephemeral keys and authenticated encryption.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class ServerTls:
    """The server's side of TLS.

    Attributes:
        context: What `create_server` takes; it hands each handshake to the context of the newest good files.

    Raises:
        InvalidTls: The files are not good; raised on construction, never later.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._files = IdentityFiles(settings)
        self._allowed = frozenset(name.encode() for name in settings.client_sans)
        self.context = self._current = _context(settings)
        self.context.sni_callback = self._choose

    def admits(self, connection: ssl.SSLObject) -> bool:
        """Whether the client's certificate carries an allowed name; True where names are not asked for."""
        if not self._allowed:
            return True
        names = (connection.getpeercert() or {}).get("subjectAltName", ())
        return carries_allowed_name((str(name[1]).encode() for name in names), self._allowed)

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context_of: ssl.SSLContext) -> None:
        """Called by OpenSSL within each handshake, whether or not the client names a server."""
        try:
            if self._files.refresh() is not None:
                self._current = _context(self._settings)
        except InvalidTls as error:
            _LOG.warning("the new TLS files are not taken, the last good ones stay: %s", error)
        connection.context = self._current


def speaks_http2(connection: ssl.SSLObject) -> bool:
    """Whether ALPN agreed on HTTP/2, which over TLS it must (RFC 9113 §3.2)."""
    return connection.selected_alpn_protocol() == _ALPN


def _context(settings: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols([_ALPN])
    try:
        context.load_cert_chain(settings.cert_path, settings.key_path, password="")
        if settings.client_ca_path is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(settings.client_ca_path)
    except OSError as error:  # `SSLError` is one
        raise InvalidTls(f"{settings.cert_path}: {error.strerror or error}") from error
    return context

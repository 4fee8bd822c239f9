"""TLS to Redis: the library's connection, with a context made from an address."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from redis.asyncio.connection import Connection

from ratelimit_service.redis_server.address_model import Tls

__all__ = ["TlsConnection", "context_of"]


class TlsConnection(Connection):
    """The library's connection with a context of ours, and a server name that may differ from the host."""

    def __init__(self, context: ssl.SSLContext, server_name: str, **settings: Any) -> None:
        self._tls_context = context
        self._tls_server_name = server_name
        super().__init__(**settings)

    def _connection_arguments(self) -> Mapping[str, Any]:
        server_name = self._tls_server_name or self.host
        return {**super()._connection_arguments(), "ssl": self._tls_context, "server_hostname": server_name}


def context_of(tls: Tls) -> ssl.SSLContext:
    """What the files of an address say, read now.

    Raises:
        OSError: A file cannot be read, or is none of what it should be (`ssl.SSLError` is one).
    """
    context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context

"""Where the API server is, and who we are: KUBECONFIG, else the pod's service account, else `~/.kube/config`."""

from __future__ import annotations

import os
from typing import Any

import kubernetes
import msgspec
from kubernetes.config import ConfigException

from ratelimit_service.errors import TidegateError

# The package is typed in parts only; this module is the one that calls it.
_config: Any = kubernetes.config


class NoAccess(TidegateError):
    """There is no API server to talk to; the message says where was looked."""


class Credentials(msgspec.Struct, frozen=True):
    """What a client shows.

    Attributes:
        server: URL.
        ca_path: CAs that are trusted, None: the system's.
        insecure: The server's certificate is not checked.
        token: Bearer token, empty: none.
        cert_path: Client certificate, None: none.
        key_path: Its key.
    """

    server: str
    ca_path: str | None
    insecure: bool
    token: str
    cert_path: str | None
    key_path: str | None


class Access:
    """The way to one API server.

    Raises:
        NoAccess: On construction.
    """

    def __init__(self, kubeconfig: str = "") -> None:
        self._configuration: Any = kubernetes.client.Configuration()
        path = kubeconfig or os.environ.get("KUBECONFIG", "")
        try:
            if path or "KUBERNETES_SERVICE_HOST" not in os.environ:
                _config.load_kube_config(
                    config_file=path or None, client_configuration=self._configuration, persist_config=False
                )
            else:
                _config.load_incluster_config(client_configuration=self._configuration)
        except (ConfigException, OSError) as error:
            raise NoAccess(f"no API server: {error}; set KUBECONFIG or run in a pod") from error

    def pool(self) -> Any:
        """Connections, to be used by several threads (urllib3)."""
        return kubernetes.client.ApiClient(self._configuration).rest_client.pool_manager

    def credentials(self) -> Credentials:
        """What to show now; a service account's token is read anew when it is due."""
        configuration = self._configuration
        header = configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
        return Credentials(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            token=header.removeprefix("Bearer ").removeprefix("bearer "),
            cert_path=configuration.cert_file,
            key_path=configuration.key_file,
        )

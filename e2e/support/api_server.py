"""A real etcd and kube-apiserver on free loopback ports, with two users: an admin and the operator.

The operator is the service account of `crds/rbac.yaml`, so RBAC holds for it; every request of it is in the audit log,
where tests look for requests that were forbidden and count what it asked for.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import kubernetes
import msgspec
import urllib3
import yaml

from e2e.cluster.build import Binaries
from e2e.support.kube import Kube
from e2e.support.processes import Process

NAMESPACE = "tidegate-system"
"""Namespace of the release."""

OPERATOR = f"system:serviceaccount:{NAMESPACE}:tidegate-operator"
"""The operator's user name."""

_AUDIT = f"""\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  users: ["{OPERATOR}"]
- level: None
"""


class Request(msgspec.Struct, frozen=True):
    """One request of the operator, out of the audit log."""

    verb: str
    uri: str
    code: int


class ApiServer:
    """A running API server."""

    def __init__(self, folder: Path, port: int, tokens: Mapping[str, str]) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{port}"
        self._tokens = tokens
        self.ca = folder / "certs" / "apiserver.crt"

    def kubeconfig(self, user: str, server: str = "") -> Path:
        """A kubeconfig of `admin` or `operator`; `server`: another URL, such as a proxy's."""
        path = self.folder / f"{user}-{secrets.token_hex(4)}.kubeconfig"
        cluster: dict[str, object] = {"server": server or f"https://{self.address}"}
        if cluster["server"] == f"https://{self.address}":
            cluster["certificate-authority"] = str(self.ca)
        else:
            cluster["insecure-skip-tls-verify"] = True
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "local", "cluster": cluster}],
                    "users": [{"name": user, "user": {"token": self._tokens[user]}}],
                    "contexts": [
                        {"name": "local", "context": {"cluster": "local", "user": user, "namespace": "default"}}
                    ],
                    "current-context": "local",
                }
            ),
            encoding="utf-8",
        )
        return path

    def kube(self, user: str = "admin") -> Kube:
        """A client of a user."""
        configuration = kubernetes.client.Configuration()
        configuration.host = f"https://{self.address}"
        configuration.ssl_ca_cert = str(self.ca)
        configuration.api_key = {"authorization": f"Bearer {self._tokens[user]}"}
        return Kube(kubernetes.client.ApiClient(configuration))

    def requests(self, since: int = 0) -> list[Request]:
        """Every finished request of the operator from the given place in the audit log on."""
        found = []
        for line in self._audit_lines()[since:]:
            event = json.loads(line)
            code = event.get("responseStatus", {}).get("code", 0)
            found.append(Request(event["verb"], event["requestURI"], code))
        return found

    def mark(self) -> int:
        """Place in the audit log, for `requests`."""
        return len(self._audit_lines())

    def _audit_lines(self) -> list[str]:
        path = self.folder / "audit.log"
        # The last line may be half written.
        return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def api_server(binaries: Binaries, folder: Path) -> Iterator[ApiServer]:
    """A ready API server that is gone when the block ends; a port that was taken meanwhile is tried anew."""
    for attempt in range(3):
        with ExitStack() as parts:
            try:
                server = _start(parts, binaries, folder / str(attempt))
            except AssertionError:
                if attempt == 2:
                    raise
                continue
            yield server
            return


def _start(parts: ExitStack, binaries: Binaries, folder: Path) -> ApiServer:
    folder.mkdir()
    client_port, peer_port, secure_port = free_ports(3)
    tokens = {"admin": secrets.token_hex(16), "operator": secrets.token_hex(16)}
    (folder / "tokens.csv").write_text(
        f"{tokens['admin']},admin,admin,system:masters\n"
        f'{tokens["operator"]},{OPERATOR},operator,"system:serviceaccounts,system:serviceaccounts:{NAMESPACE}"\n',
        encoding="utf-8",
    )
    (folder / "audit.yaml").write_text(_AUDIT, encoding="utf-8")
    key = folder / "sa.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    etcd = f"http://127.0.0.1:{client_port}"
    peer = f"http://127.0.0.1:{peer_port}"
    parts.enter_context(
        _killed(
            [*binaries.etcd, f"--data-dir={folder}/etcd", f"--listen-client-urls={etcd}",
             f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}", "--unsafe-no-fsync",
             f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"],
            folder / "etcd.log",
        )
    )  # fmt: skip
    server = ApiServer(folder, secure_port, tokens)
    process = parts.enter_context(_killed(_command(binaries.api_server, folder, etcd, secure_port), folder / "api.log"))
    process.await_("the API server", lambda: _is_ready(server), timeout_s=120)
    return server


@contextmanager
def _killed(command: Sequence[str], log: Path) -> Iterator[Process]:
    """A process that is killed when the block ends: nothing of it is kept, and a stop would wait for its watches."""
    process = Process(command, log)
    try:
        yield process
    finally:
        process.send(signal.SIGKILL)
        process.wait()


def _command(program: Sequence[str], folder: Path, etcd: str, port: int) -> list[str]:
    return [
        *program, f"--etcd-servers={etcd}", f"--secure-port={port}", "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1", f"--cert-dir={folder}/certs", f"--token-auth-file={folder}/tokens.csv",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={folder}/sa.key",
        f"--service-account-signing-key-file={folder}/sa.key", "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC", f"--audit-policy-file={folder}/audit.yaml",
        f"--audit-log-path={folder}/audit.log", "--endpoint-reconciler-type=none",
    ]  # fmt: skip


def _is_ready(server: ApiServer) -> bool:
    if not server.ca.exists():
        return False
    try:
        return server.kube().get("/readyz").code == 200
    except urllib3.exceptions.HTTPError:
        return False  # refused, or another certificate than a moment later: not yet

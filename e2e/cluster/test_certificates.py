"""Certificates that change while Envoy asks: between service and operator, and between Envoy and the service."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from e2e.cluster.conftest import HERE, Figures, front, upgrade
from e2e.cluster.kubectl import Cluster
from e2e.cluster.traffic import MANY, NAMESPACE, POLICY, apply_policy, none_failed, service_pods, under_load
from support.certificates import Authority, serial_of

pytestmark = pytest.mark.slow

OPERATOR = f"tidegate-operator.{NAMESPACE}.svc"
CLIENT = f"tidegate.{NAMESPACE}.svc"
SERVICE = f"tidegate-headless.{NAMESPACE}.svc.cluster.local"


def _secret(cluster: Cluster, name: str, authority: Authority, dns: str, *trusted: bytes) -> int:
    """A secret of a new certificate for that name, with the CAs that are trusted; gives its serial."""
    certificate, key = authority.issue(name, dns=dns)
    _put(cluster, name, {"tls.crt": certificate.read_bytes(), "tls.key": key.read_bytes(), "ca.crt": b"".join(trusted)})
    return serial_of(certificate.read_bytes())


def _put(cluster: Cluster, name: str, data: dict[str, bytes]) -> None:
    lines = "".join(f"  {key}: {base64.b64encode(value).decode()}\n" for key, value in data.items())
    cluster.apply(
        f"apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\n"
        f"metadata: {{name: {name}, namespace: {NAMESPACE}}}\ndata:\n{lines}"
    )


def _data(cluster: Cluster, name: str) -> dict[str, bytes]:
    found = cluster.get("secret", name, "-n", NAMESPACE)["data"]
    return {key: base64.b64decode(value) for key, value in found.items()}


def _noticed(cluster: Cluster) -> None:
    """A change of a pod makes the kubelet look at the pod's volumes at once, not within its minute."""
    for component in ("service", "operator"):
        selector = f"app.kubernetes.io/component={component}"
        stamp = f"noticed={time.time_ns()}"
        cluster.kubectl("annotate", "pods", "-n", NAMESPACE, "-l", selector, stamp, "--overwrite")


def _served(cluster: Cluster, namespace: str, container: str, host: str, port: int) -> int:
    """Serial of the certificate that is shown at an address, asked from inside the cluster."""
    script = f"import ssl; print(ssl.get_server_certificate(('{host}', {port}), timeout=5))"
    printed = cluster.kubectl("exec", "-n", namespace, container, "--", "python3", "-c", script)
    return serial_of(printed.encode())


def _in_pods(cluster: Cluster, path: str, expected: bytes) -> bool:
    """Whether every pod of the service has that file."""
    for pod in service_pods(cluster):
        script = f"import sys; sys.stdout.write(open('{path}').read())"
        if cluster.kubectl("exec", "-n", NAMESPACE, pod, "--", "python3", "-c", script).encode() != expected:
            return False
    return True


def test_a_new_ca_between_service_and_operator_goes_unnoticed(
    installed: Cluster, figures: Figures, tmp_path: Path
) -> None:
    """First both CAs are trusted, then both sides have certificates of the new one, then the old one is dropped."""
    apply_policy(installed, MANY)
    pods = service_pods(installed)
    new = Authority(tmp_path, "new-ca")
    new_ca = new.ca_path.read_bytes()
    server, client = _data(installed, "tidegate-xds-server"), _data(installed, "tidegate-xds-client")
    both = server["ca.crt"] + new_ca
    with under_load(installed, 60) as calls:
        _put(installed, "tidegate-xds-server", {**server, "ca.crt": both})
        _put(installed, "tidegate-xds-client", {**client, "ca.crt": both})
        _noticed(installed)
        installed.eventually("both CAs", lambda: _in_pods(installed, "/etc/tidegate/xds/ca.crt", both), 150)

        serial = _secret(installed, "tidegate-xds-server", new, OPERATOR, new_ca)
        _secret(installed, "tidegate-xds-client", new, CLIENT, new_ca)
        _noticed(installed)
        installed.eventually("the new CA", lambda: _in_pods(installed, "/etc/tidegate/xds/ca.crt", new_ca), 150)
        installed.eventually(
            "the operator's new certificate",
            lambda: _served(installed, NAMESPACE, "deploy/tidegate", OPERATOR, 18002) == serial,
            150,
        )
        # Streams that were open go on; a new leader makes every replica connect anew, by the new certificates alone.
        holder = installed.get("lease", "tidegate-operator", "-n", NAMESPACE)["spec"]["holderIdentity"]
        installed.kubectl("delete", "pod", "-n", NAMESPACE, holder.partition("_")[0])
        status = apply_policy(installed, POLICY % (999_998, "1h"))

    figures["certificates between service and operator"] = none_failed(calls.result())
    assert status["distribution"]["summary"] == "2/2"
    assert service_pods(installed) == pods


def test_a_new_certificate_of_the_service_goes_unnoticed(installed: Cluster, figures: Figures, tmp_path: Path) -> None:
    """An Envoy that makes a new connection every two seconds meets the old certificate, then the new one."""
    authority = Authority(tmp_path, "envoy-ca")
    ca = authority.ca_path.read_bytes()
    old = _secret(installed, "grpc-certificate", authority, SERVICE, ca)
    upgrade(installed, "tls.grpc.mode=ExistingSecret,tls.grpc.existingSecret=grpc-certificate")
    manifest = _front_with_tls((HERE / "manifests" / "front.yaml").read_text(encoding="utf-8"), ca.decode())
    front(installed, manifest, "front-tls")
    apply_policy(installed, MANY)
    assert _served(installed, "front-tls", "deploy/envoy", SERVICE, 8081) == old

    with under_load(installed, 40, front="front-tls") as calls:
        new = _secret(installed, "grpc-certificate", authority, SERVICE, ca)
        _noticed(installed)
        installed.eventually(
            "the service's new certificate",
            # Several times, because the name stands for every replica.
            lambda: all(_served(installed, "front-tls", "deploy/envoy", SERVICE, 8081) == new for _ in range(4)),
            150,
        )
    figures["certificate of the service"] = none_failed(calls.result())
    upgrade(installed)
    installed.kubectl("delete", "namespace", "front-tls", "--wait=false")


def _front_with_tls(manifest: str, ca: str) -> str:
    """The same front in a namespace of its own, whose Envoy asks over TLS and lets no connection grow old."""
    plain = "explicit_http_config: {http2_protocol_options: {}}\n"
    assert plain in manifest
    inline = ca.replace("\n", "\\n")
    socket = (
        "        transport_socket:\n"
        "          name: envoy.transport_sockets.tls\n"
        "          typed_config:\n"
        '            "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n'
        "            common_tls_context:\n"
        "              alpn_protocols: [h2]\n"
        f'              validation_context: {{trusted_ca: {{inline_string: "{inline}"}}}}\n'
    )
    aged = "            common_http_protocol_options: {max_connection_duration: 2s}\n"
    manifest = manifest.replace(plain, plain + aged + socket)
    return manifest.replace("namespace: front", "namespace: front-tls").replace("name: front\n", "name: front-tls\n")

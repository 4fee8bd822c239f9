"""What `tidegate-operator` can be told: one table of flags, each also by environment."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ratelimit_operator.plan.world import Scope
from ratelimit_service.addresses import Address, InvalidAddress, parse_address
from ratelimit_service.errors import TidegateError
from ratelimit_service.flags import Flag
from ratelimit_service.policy.model import DNS_LABEL
from ratelimit_service.policy.quantities import duration_us
from ratelimit_service.policy.render import parts
from ratelimit_service.policy.render.parts import ServiceAddress

FLAGS: Final[tuple[Flag, ...]] = (
    Flag("--xds", "0.0.0.0:18002", "HOST:PORT where replicas of the service get their policies."),
    Flag("--admin", "0.0.0.0:8080", "HOST:PORT of health and metrics."),
    Flag("--namespaces", "", "Namespace whose policies are this release's; may be repeated.  [all]", separator=","),
    Flag("--controller-name", "tidegate", "Name of this release; two in one cluster need two names."),
    Flag("--release-namespace", "", "Namespace of the release.  [the pod's, else tidegate-system]"),
    Flag("--service", "tidegate", "Name of the service's Service, whose ready endpoints are the replicas."),
    Flag("--identity", "", "Name of this process in the Lease.  [the host's name]"),
    Flag("--kubeconfig", "", "How to reach the API server.  [KUBECONFIG, else the pod's service account]"),
    Flag("--xds-tls-cert", "", "PEM file of the xDS server's certificate chain."),
    Flag("--xds-tls-key", "", "PEM file of its private key."),
    Flag("--xds-client-ca", "", "PEM file of the CAs that replicas must show a certificate of."),
    Flag("--xds-client-san", "", "Name that a replica's certificate must carry; may be repeated.", separator=","),
    Flag("--xds-canary", "false", "Give what is new to one replica first.", switch=True),
    Flag("--secret-mount", "", "NAMESPACE/NAME of a secret that the service has mounted; repeatable.", separator=","),
    Flag("--profile-config-maps", "", "Namespace that gets its profiles as ConfigMaps; repeatable.", separator=","),
    Flag("--gateway-api", "true", "Look at Gateways and routes, where their kinds are installed.", switch=True),
    Flag("--istio", "false", "Write EnvoyFilters for Istio's Gateways and for selected workloads.", switch=True),
    Flag("--envoy-service", "", "HOST:PORT where Envoy finds the service.  [its Service, port 8081]"),
    Flag("--list-interval", "60s", "How often everything is compared with a complete list."),
    Flag("--debounce", "200ms", "How long a change waits for others to be compiled with."),
    Flag("--lease-duration", "15s", "How long a silent holder keeps the Lease."),
    Flag("--lease-renew", "10s", "How long a holder acts without having renewed; less than the duration."),
    Flag("--lease-retry", "2s", "How often the Lease is looked at."),
    Flag("--bootstrap-delay", "5s", "How long a change waits for others to be kept in the bootstrap ConfigMaps with."),
    Flag("--history", "5", "How many sets that every replica ran are kept to go back to; 0: none."),
    Flag("--log-format", "json", "json or console."),
    Flag("--log-level", "info", "debug, info, warning or error."),
)
"""Every flag of the operator."""

MOST_HISTORY: Final = 50
"""Most sets that may be kept: each is as large as the bootstrap set."""

GRPC_PORT: Final = 8081
"""Where the service answers Envoy (DECISIONS 37)."""

_POD_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?")
_LABEL: Final = re.compile(DNS_LABEL.removesuffix("$") + r"\Z")
_LOG_FORMATS: Final = ("json", "console")
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class InvalidOptions(TidegateError):
    """The flags contradict themselves or cannot be read.

    Attributes:
        problems: One line each, beginning with the flag.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Options(msgspec.Struct, frozen=True):
    """Everything that the operator was told, checked; durations in seconds."""

    xds: Address
    admin: Address
    controller_name: str
    service: str
    identity: str
    kubeconfig: str
    scope: Scope
    xds_tls_cert: Path | None
    xds_tls_key: Path | None
    xds_client_ca: Path | None
    xds_client_sans: tuple[str, ...]
    xds_canary: bool
    profile_config_maps: frozenset[str]
    gateway_api: bool
    istio: bool
    envoy_service: ServiceAddress
    list_interval_s: float
    debounce_s: float
    lease_duration_s: float
    lease_renew_s: float
    lease_retry_s: float
    bootstrap_delay_s: float
    history: int
    log_format: str
    log_level: str

    @property
    def attaching_places(self) -> tuple[str, ...]:
        """Namespaces in which there may be EnvoyFilters of this release, the empty one: the whole cluster.

        A Gateway may stand in any namespace, and its filter beside it; without Gateways, filters stand beside policies.
        """
        return ("",) if self.gateway_api else tuple(sorted(self.scope.namespaces)) or ("",)


class _Reader:
    """Reads texts by flag and collects what is wrong."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self.problems: list[str] = []
        self._texts = {flag.name: tuple(values.get(flag.name) or filter(None, [flag.default])) for flag in FLAGS}

    def complain(self, flag: str, message: str) -> None:
        self.problems.append(f"{flag}: {message}")

    def texts(self, flag: str) -> tuple[str, ...]:
        return self._texts[flag]

    def text(self, flag: str) -> str:
        return "".join(self._texts[flag][-1:])

    def address(self, flag: str) -> Address:
        try:
            found = parse_address(self.text(flag))
        except InvalidAddress as error:
            self.complain(flag, str(error))
            return Address()
        if found.unix_path:
            self.complain(flag, "HOST:PORT is wanted, not a Unix socket")
        return found

    def seconds(self, flag: str, least_us: int = 1_000) -> float:
        value_us = duration_us(self.text(flag))
        if value_us is None or value_us < least_us:
            self.complain(flag, f"`{self.text(flag)}` is no duration of at least {least_us // 1000} ms such as `200ms`")
            return 1.0
        return value_us / 1_000_000

    def choice(self, flag: str, known: Sequence[str]) -> str:
        if self.text(flag) not in known:
            self.complain(flag, f"`{self.text(flag)}` is none of {', '.join(known)}")
        return self.text(flag)

    def count(self, flag: str, most: int) -> int:
        text = self.text(flag)
        if not text.isascii() or not text.isdigit() or int(text) > most:
            self.complain(flag, f"`{text}` is no number from 0 to {most}")
            return 0
        return int(text)

    def file(self, flag: str) -> Path | None:
        if not self.text(flag):
            return None
        path = Path(self.text(flag))
        if not path.is_file():
            self.complain(flag, f"{path} is no file that can be read")
        return path

    def namespaces(self, flag: str) -> frozenset[str]:
        for name in self.texts(flag):
            if _LABEL.match(name) is None:
                self.complain(flag, f"`{name}` is no name of a namespace")
        return frozenset(self.texts(flag))


def decode_options(values: Mapping[str, Sequence[str]]) -> Options:
    """Options out of texts by flag; what is missing has its default.

    Raises:
        InvalidOptions: With all problems.
    """
    read = _Reader(values)
    namespaces = read.namespaces("--namespaces")
    for mount in read.texts("--secret-mount"):
        if len([part for part in mount.split("/") if part]) != 2:
            read.complain("--secret-mount", f"`{mount}` is not NAMESPACE/NAME")
    if _NAME.fullmatch(read.text("--controller-name")) is None:
        read.complain("--controller-name", f"`{read.text('--controller-name')}` has other than letters, digits, . _ -")
    options = Options(
        xds=read.address("--xds"),
        admin=read.address("--admin"),
        controller_name=read.text("--controller-name"),
        service=read.text("--service"),
        identity=read.text("--identity") or socket.gethostname(),
        kubeconfig=read.text("--kubeconfig"),
        scope=Scope(
            release_namespace=read.text("--release-namespace") or _pod_namespace(),
            namespaces=namespaces,
            secret_mounts=frozenset(read.texts("--secret-mount")),
            # A Role of a few namespaces cannot read namespaces themselves.
            reads_labels=not namespaces,
        ),
        xds_tls_cert=read.file("--xds-tls-cert"),
        xds_tls_key=read.file("--xds-tls-key"),
        xds_client_ca=read.file("--xds-client-ca"),
        xds_client_sans=read.texts("--xds-client-san"),
        xds_canary=read.choice("--xds-canary", ("true", "false")) == "true",
        profile_config_maps=read.namespaces("--profile-config-maps"),
        gateway_api=read.choice("--gateway-api", ("true", "false")) == "true",
        istio=read.choice("--istio", ("true", "false")) == "true",
        envoy_service=_envoy_service(read),
        list_interval_s=read.seconds("--list-interval"),
        debounce_s=read.seconds("--debounce"),
        lease_duration_s=read.seconds("--lease-duration", 1_000_000),
        lease_renew_s=read.seconds("--lease-renew"),
        lease_retry_s=read.seconds("--lease-retry"),
        bootstrap_delay_s=read.seconds("--bootstrap-delay"),
        history=read.count("--history", MOST_HISTORY),
        log_format=read.choice("--log-format", _LOG_FORMATS),
        log_level=read.choice("--log-level", _LOG_LEVELS),
    )
    _check_together(read, options)
    if read.problems:
        raise InvalidOptions(read.problems)
    return options


def _envoy_service(read: _Reader) -> ServiceAddress:
    """Where Envoy finds the service: as told, else its Service in the release's namespace."""
    namespace = read.text("--release-namespace") or _pod_namespace()
    text = read.text("--envoy-service") or f"{read.text('--service')}.{namespace}.svc.cluster.local:{GRPC_PORT}"
    try:
        return parts.ServiceAddress.parse(text)
    except parts.InvalidAddress as error:
        read.complain("--envoy-service", str(error))
        return parts.ServiceAddress("", 0)


def _check_together(read: _Reader, options: Options) -> None:
    tls = (options.xds_tls_cert, options.xds_tls_key, options.xds_client_ca)
    if any(tls) and not all(tls):
        read.complain("--xds-tls-cert", "goes with --xds-tls-key and --xds-client-ca: all three, or none")
    if options.xds_client_sans and not options.xds_client_ca:
        read.complain("--xds-client-san", "goes with --xds-client-ca")
    if not options.lease_retry_s < options.lease_renew_s < options.lease_duration_s:
        read.complain("--lease-renew", "is more than --lease-retry and less than --lease-duration")


def _pod_namespace() -> str:
    named = os.environ.get("POD_NAMESPACE", "")
    if named:
        return named
    try:
        return _POD_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return "tidegate-system"

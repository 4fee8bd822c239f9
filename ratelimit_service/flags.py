"""What `tidegate serve` can be told (DECISIONS 38): one table of flags.

`FLAGS` is the only list: the command line, the environment, the settings and the reference page are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

MEMORY_STORE: Final = "memory://"
"""`--store`: counts live in this process."""


class Flag(msgspec.Struct, frozen=True):
    """One flag of `serve`.

    Attributes:
        name: `--` included.
        default: Text that is decoded when neither flag nor environment says anything; empty: unset.
        help: One line for `--help` and the reference.
        separator: What parts the values in the environment; empty: the flag takes one value.
        switch: Given without a value, it means `true`.
        upstream_env: Name that envoyproxy/ratelimit reads, empty: none.
        standard_env: Names that a standard has for it, the first that is set counts.
    """

    name: str
    default: str
    help: str
    separator: str = ""
    switch: bool = False
    upstream_env: str = ""
    standard_env: tuple[str, ...] = ()

    @property
    def environment(self) -> tuple[str, ...]:
        """Names of environment variables, the first that is set counts."""
        own = "TIDEGATE_" + self.name.removeprefix("--").replace("-", "_").upper()
        upstream = (self.upstream_env,) if self.upstream_env else ()
        return (own, *upstream, *self.standard_env)


FLAGS: Final[tuple[Flag, ...]] = (
    Flag(
        "--policies",
        "",
        "File or folder of policies, may be repeated; or xds://HOST:PORT[,HOST:PORT] of an operator.",
        separator=":",
    ),
    Flag(
        "--xds-node",
        "",
        "Name of this replica for the operator; not given: the host's, which is the pod's.",
    ),
    Flag("--xds-type", "tidegate", "Whose resources are asked for: tidegate, or envoyproxy for its RateLimitConfig."),
    Flag(
        "--xds-ca",
        "",
        "PEM file of the CAs of the operator's certificate; without it and --xds-cert the stream is not encrypted.",
    ),
    Flag(
        "--xds-cert",
        "",
        "PEM file of this replica's certificate chain for the operator.",
    ),
    Flag("--xds-key", "", "PEM file of its private key."),
    Flag(
        "--xds-server-name",
        "",
        "Name to expect in the operator's certificate; not given: the host's.",
    ),
    Flag("--xds-snapshot", "", "Folder where the last good set is kept, to start from while no operator answers."),
    Flag("--xds-bootstrap", "", "Folder with a set that the operator keeps, for a first start without it."),
    Flag("--store", MEMORY_STORE, "Where hits are counted: memory:// or redis://HOST:PORT and its kin."),
    Flag("--grpc", "0.0.0.0:8081", "HOST:PORT or unix:PATH that Envoy asks; may be repeated.", separator=","),
    Flag("--admin", "0.0.0.0:8080", "HOST:PORT of health, metrics and debug pages."),
    Flag("--transport", "native", "Server that speaks gRPC: our own, or the reference one with reflection."),
    Flag("--workers", "1", "Processes that serve; more than one need a shared store, each is a replica of it."),
    Flag("--grpc-tls-cert", "", "PEM file of the server's certificate chain."),
    Flag("--grpc-tls-key", "", "PEM file of the server's private key."),
    Flag("--grpc-client-ca", "", "PEM file of the CAs that clients must show a certificate of (mTLS)."),
    Flag("--grpc-client-san", "", "Name that a client's certificate must carry; may be repeated.", separator=","),
    Flag("--drain-delay", "5s", "How long to go on serving as NOT_SERVING after SIGTERM."),
    Flag("--drain-grace", "25s", "When to exit at the latest after SIGTERM, the delay included."),
    Flag("--store-max-keys", "1000000", "Keys that the memory store holds."),
    Flag("--store-max-bytes", "200Mi", "Memory that the memory store holds."),
    Flag("--slots", "1", "Most replicas that will share one store, 1: not said; no effect with memory://."),
    Flag("--warm-file", "", "File that keeps which keys are hot over a restart, to lease them at once; over Redis."),
    Flag("--secrets-dir", "/etc/tidegate/secrets", "Folder <namespace>/<name>/ with the secrets that profiles name."),
    Flag("--deadline", "10ms", "When a call is answered at the latest, whatever the store does."),
    Flag("--compat", "none", "Count and fail exactly like another service: none or envoyproxy."),
    Flag(
        "--compat-per-second-store",
        "",
        "With --compat envoyproxy over Redis: a second Redis, for limits per second.",
    ),
    Flag(
        "--compat-expiry-jitter",
        "300s",
        "With --compat envoyproxy over Redis: less than this is added to each expiry.",
    ),
    Flag(
        "--compat-local-cache-bytes",
        "0",
        "With --compat envoyproxy over Redis: memory for keys known to be over their limit.",
    ),
    Flag(
        "--compat-stop-when-over",
        "false",
        "With --compat envoyproxy over Redis: look first, and count only keys that cross their limit.",
        switch=True,
        upstream_env="STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT",
    ),
    Flag("--log-format", "json", "json or console."),
    Flag("--log-level", "info", "debug, info, warning or error."),
    Flag(
        "--traces-endpoint",
        "none",
        "Where traces of sampled calls go by OTLP: http://HOST:4317, https://HOST:4317; none: nowhere.",
        standard_env=("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ),
    Flag("--max-message-bytes", "4Mi", "Longest request that is read."),
    Flag("--metrics-max-series", "20000", "Series that /metrics shows; what is beyond is counted as overflow."),
    Flag(
        "--start-without-policies",
        "false",
        "Start although the policies are bad or not there yet, unready until they are good.",
        switch=True,
    ),
    Flag("--admin-expose", "", "Page that answers every address, not loopback only; may be repeated.", separator=","),
    Flag("--shadow-mode", "false", "Reject nothing, report everything.", switch=True, upstream_env="SHADOW_MODE"),
    Flag("--quota-mode", "false", "Treat every rule as a quota rule.", switch=True, upstream_env="QUOTA_MODE"),
    Flag(
        "--merge-domain-config",
        "false",
        "Let one domain stand in several files of envoyproxy/ratelimit YAML.",
        switch=True,
        upstream_env="MERGE_DOMAIN_CONFIG",
    ),
    Flag(
        "--response-headers",
        "false",
        "Send RateLimit-Limit, -Remaining and -Reset with every answer.",
        switch=True,
        upstream_env="LIMIT_RESPONSE_HEADERS_ENABLED",
    ),
    Flag(
        "--response-dynamic-metadata",
        "false",
        "Send dynamic metadata with every answer.",
        switch=True,
        upstream_env="RESPONSE_DYNAMIC_METADATA",
    ),
    Flag(
        "--near-limit-ratio", "0.8", "Share of a limit above which hits are near it.", upstream_env="NEAR_LIMIT_RATIO"
    ),
)


XDS_SCHEME: Final = "xds://"
"""How a value of `--policies` begins that names an operator."""


def environment_texts(environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What the environment says, by flag; a variable that is empty says nothing, and our own name comes first.

    `CONFIG_TYPE=GRPC_XDS_SOTW` with its companions, as Envoy Gateway starts envoyproxy/ratelimit, is understood too.
    """
    texts = _upstream_xds(environment)
    for flag in FLAGS:
        said = next(filter(None, map(environment.get, flag.environment)), None)
        if said is not None:
            parts = flag.separator and not said.startswith(XDS_SCHEME)
            texts[flag.name] = tuple(said.split(flag.separator)) if parts else (said,)
    return texts


_UPSTREAM_TLS: Final = {
    "--xds-ca": "CONFIG_GRPC_XDS_SERVER_TLS_CACERT",
    "--xds-cert": "CONFIG_GRPC_XDS_CLIENT_TLS_CERT",
    "--xds-key": "CONFIG_GRPC_XDS_CLIENT_TLS_KEY",
    "--xds-server-name": "CONFIG_GRPC_XDS_SERVER_TLS_SAN",
}


def _upstream_xds(environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Where envoyproxy/ratelimit would ask, if it is told to ask."""
    if environment.get("CONFIG_TYPE") != "GRPC_XDS_SOTW":
        return {}
    server = environment.get("CONFIG_GRPC_XDS_SERVER_URL") or "localhost:18000"
    names = {"--xds-node": "CONFIG_GRPC_XDS_NODE_ID"}
    if environment.get("CONFIG_GRPC_XDS_SERVER_USE_TLS", "").lower() in ("1", "t", "true"):
        names |= _UPSTREAM_TLS
    said = {flag: (environment[name],) for flag, name in names.items() if environment.get(name)}
    return {"--policies": (f"{XDS_SCHEME}{server}",), "--xds-type": ("envoyproxy",), **said}

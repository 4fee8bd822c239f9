"""Flags become settings, or every problem at once."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ratelimit_service.addresses import Address
from ratelimit_service.flags import FLAGS, environment_texts
from ratelimit_service.settings import (
    LOOPBACK_ONLY,
    Compat,
    InvalidSettings,
    LogFormat,
    LogLevel,
    ServeSettings,
    decode_settings,
)

TRANSPORTS = ("grpcio", "native")


def decoded(**texts: str | tuple[str, ...]) -> ServeSettings:
    """Settings of flags written as keywords; `policies` is a file that exists unless given."""
    given = {"policies": __file__, **texts}
    values = {"--" + name.replace("_", "-"): (text,) if isinstance(text, str) else text for name, text in given.items()}
    return decode_settings(values, TRANSPORTS)


def problems_of(**texts: str | tuple[str, ...]) -> tuple[str, ...]:
    with pytest.raises(InvalidSettings) as caught:
        decoded(**texts)
    return caught.value.problems


def test_policies_alone_give_the_documented_defaults() -> None:
    """The defaults of every flag, as typed values."""
    assert decoded() == ServeSettings(
        policies=(Path(__file__),),
        xds=None,
        store=None,
        grpc=(Address("0.0.0.0", 8081),),
        admin=Address("0.0.0.0", 8080),
        workers=1,
        transport="native",
        tls_cert=None,
        tls_key=None,
        client_ca=None,
        client_sans=(),
        drain_delay_us=5_000_000,
        drain_grace_us=25_000_000,
        store_max_keys=1_000_000,
        store_max_bytes=200 * 2**20,
        slots=1,
        warm_file=None,
        secrets_dir=Path("/etc/tidegate/secrets"),
        compat_per_second_store=None,
        compat_expiry_jitter_s=300,
        compat_local_cache_bytes=0,
        compat_stop_when_over=False,
        deadline_us=10_000,
        compat=Compat.NONE,
        log_format=LogFormat.JSON,
        log_level=LogLevel.INFO,
        traces_endpoint="",
        max_message_bytes=4 * 2**20,
        metrics_max_series=20_000,
        start_without_policies=False,
        admin_expose=frozenset(),
        shadow_mode=False,
        quota_mode=False,
        merge_domain_config=False,
        response_headers=False,
        response_dynamic_metadata=False,
        near_limit_ratio=0.8,
    )


def test_every_flag_is_read(tmp_path: Path) -> None:
    """Each flag changes its own field, so a flag that nobody reads cannot be in the table."""
    pem = str(tmp_path / "x.pem")
    Path(pem).touch()
    texts: dict[str, str | tuple[str, ...]] = {
        "policies": (str(tmp_path), pem),
        "grpc": ("127.0.0.1:1", "unix:/x"),
        "admin": "127.0.0.1:2",
        "transport": "grpcio",
        "grpc_tls_cert": pem,
        "grpc_tls_key": pem,
        "grpc_client_ca": pem,
        "grpc_client_san": ("a", "b"),
        "drain_delay": "0",
        "drain_grace": "1m30s",
        "store_max_keys": "7",
        "store_max_bytes": "1Mi",
        "slots": "3",
        "warm_file": "/warm",
        "secrets_dir": "/elsewhere",
        "compat_per_second_store": "redis://seconds:6379",
        "compat_expiry_jitter": "10s",
        "compat_local_cache_bytes": "1Mi",
        "compat_stop_when_over": "true",
        "store": "redis://redis:6379",
        "deadline": "20ms",
        "compat": "envoyproxy",
        "log_format": "console",
        "log_level": "debug",
        "traces_endpoint": "http://collector:4317",
        "max_message_bytes": "2Ki",
        "metrics_max_series": "5",
        "start_without_policies": "TRUE",
        "admin_expose": ("json", "/explain"),
        "shadow_mode": "1",
        "quota_mode": "yes",
        "merge_domain_config": "on",
        "response_headers": "t",
        "response_dynamic_metadata": "true",
        "near_limit_ratio": "0.5",
    }
    written = {"--" + name.replace("_", "-") for name in texts}
    changed, default = msgspec.structs.asdict(decoded(**texts)), msgspec.structs.asdict(decoded())

    # Those of an operator go with another kind of --policies: test_xds_settings has them. Workers need other flags too.
    assert written | {"--workers"} == {flag.name for flag in FLAGS if not flag.name.startswith("--xds-")}
    assert {field for field in changed if changed[field] == default[field]} == {"xds", "workers"}
    assert changed["admin_expose"] == {"/json", "/explain"}
    assert changed["drain_grace_us"] == 90_000_000
    assert changed["drain_delay_us"] == 0


def test_all_problems_are_told_at_once() -> None:
    """One run is enough to mend a command line."""
    problems = problems_of(
        policies="/no/such/place",
        store="redis://local host",
        grpc="nowhere",
        admin="unix:/x",
        transport="pigeon",
        grpc_tls_cert="/no/such/file",
        drain_delay="soon",
        drain_grace="1s",
        store_max_keys="0",
        store_max_bytes="1",
        slots="many",
        deadline="1h",
        compat="limitador",
        log_format="xml",
        log_level="loud",
        max_message_bytes="big",
        metrics_max_series="-1",
        start_without_policies="maybe",
        admin_expose="/metrics",
        shadow_mode="2",
        near_limit_ratio="1.5",
    )

    assert [problem.partition(":")[0] for problem in problems] == [
        "--policies",
        "--store",
        "--grpc",
        "--admin",
        "--transport",
        "--grpc-tls-cert",
        "--grpc-tls-key",
        "--drain-delay",
        "--store-max-keys",
        "--store-max-bytes",
        "--slots",
        "--deadline",
        "--compat",
        "--log-format",
        "--log-level",
        "--max-message-bytes",
        "--metrics-max-series",
        "--start-without-policies",
        "--admin-expose",
        "--shadow-mode",
        "--near-limit-ratio",
    ]


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (
            {"policies": ()},
            "--policies: name at least one file or folder of policies, like --policies examples/policies",
        ),
        ({"policies": "/no/such"}, "--policies: /no/such: no such file or folder"),
        (
            {"store": "redis://r:0"},
            "--store: 'r:0' has no port from 1 to 65535",
        ),
        ({"compat_per_second_store": "redis://r:0"}, "--compat-per-second-store: 'r:0' has no port from 1 to 65535"),
        ({"store": "disk"}, "--store: 'disk' is no store; write memory:// or redis://HOST:PORT"),
        ({"drain_grace": "4s"}, "--drain-grace: includes --drain-delay, so it cannot be shorter"),
        ({"deadline": "0"}, "--deadline: 0 is out of range, 1ms to 1m"),
        (
            {"deadline": "fast"},
            "--deadline: 'fast' is not a duration; write numbers with h, m, s or ms, like 5s or 1m30s",
        ),
        ({"store_max_bytes": "1Ki"}, "--store-max-bytes: 1Ki is out of range, 1Mi to 1Pi"),
        ({"slots": "1001"}, "--slots: '1001' is not a whole number from 1 to 1000"),
        ({"near_limit_ratio": "none"}, "--near-limit-ratio: 'none' is not a ratio above 0 and at most 1"),
        ({"near_limit_ratio": "nan"}, "--near-limit-ratio: 'nan' is not a ratio above 0 and at most 1"),
        ({"transport": "pigeon"}, "--transport: 'pigeon' is none of grpcio, native"),
        ({"admin": "unix:/x"}, "--admin: is HOST:PORT; a Unix socket is for --grpc only"),
        ({"admin_expose": "livez"}, f"--admin-expose: /livez is none of {', '.join(LOOPBACK_ONLY)}"),
        ({"grpc_tls_cert": __file__}, "--grpc-tls-key: certificate and key go together"),
        ({"grpc_tls_key": __file__}, "--grpc-tls-cert: certificate and key go together"),
        ({"grpc_client_ca": __file__}, "--grpc-client-ca: needs --grpc-tls-cert and --grpc-tls-key"),
        ({"grpc_client_san": "a"}, "--grpc-client-san: needs --grpc-client-ca"),
        ({"grpc_client_ca": "/no/ca"}, "--grpc-client-ca: /no/ca: no such file"),
        ({"grpc_client_ca": "/"}, "--grpc-client-ca: /: no such file"),
        ({"grpc_client_ca": "a" * 300}, f"--grpc-client-ca: {'a' * 300}: File name too long"),
        ({"policies": "a" * 300}, f"--policies: {'a' * 300}: File name too long"),
        ({"policies": __file__ + "/x"}, f"--policies: {__file__}/x: no such file or folder"),
        ({"slots": "9" * 5_000}, f"--slots: '{'9' * 5_000}' is not a whole number from 1 to 1000"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_each_problem_is_said_exactly(texts: dict[str, str | tuple[str, ...]], problem: str) -> None:
    """Flag, what is wrong, what would be right."""
    assert problem in problems_of(**texts)


def test_started_without_policies_a_path_may_come_later() -> None:
    """A folder that is not mounted yet is what that flag is for."""
    assert decoded(policies="/no/such", start_without_policies="true").policies == (Path("/no/such"),)


def test_every_flag_has_its_own_environment_and_some_have_upstreams_name_too() -> None:
    """`--a-b` is `TIDEGATE_A_B`; others are those that envoyproxy/ratelimit reads."""
    upstream = {flag.environment[1] for flag in FLAGS if len(flag.environment) > 1 and not flag.standard_env}

    assert FLAGS[0].environment == ("TIDEGATE_POLICIES",)
    assert {flag.environment[0] for flag in FLAGS} == {
        "TIDEGATE_" + flag.name[2:].replace("-", "_").upper() for flag in FLAGS
    }
    assert upstream == {
        "SHADOW_MODE",
        "QUOTA_MODE",
        "MERGE_DOMAIN_CONFIG",
        "LIMIT_RESPONSE_HEADERS_ENABLED",
        "RESPONSE_DYNAMIC_METADATA",
        "NEAR_LIMIT_RATIO",
        "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT",
    }


def test_the_environment_is_parted_where_a_flag_takes_several_values() -> None:
    """Paths by colons, the rest by commas; a single value is taken whole; empty says nothing; our name comes first."""
    environment = {
        "TIDEGATE_POLICIES": "/a:/b c",
        "TIDEGATE_ADMIN_EXPOSE": "/json,/explain",
        "TIDEGATE_STORE": "memory:// ",
        "TIDEGATE_SLOTS": "",
        "TIDEGATE_SHADOW_MODE": "false",
        "SHADOW_MODE": "true",
        "QUOTA_MODE": "true",
        "PATH": "/bin",
    }

    assert environment_texts(environment) == {
        "--policies": ("/a", "/b c"),
        "--admin-expose": ("/json", "/explain"),
        "--store": ("memory:// ",),
        "--shadow-mode": ("false",),
        "--quota-mode": ("true",),
    }


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"workers": "2"}, "--workers: 2 workers need a store that they share, like --store redis://HOST:PORT; "),
        ({"workers": "0"}, "--workers: '0' is not a whole number from 1 to 64"),
        ({"workers": "2", "store": "redis://h:1", "transport": "grpcio"}, "--workers: more than one needs --transport"),
        ({"workers": "4", "store": "redis://h:1", "slots": "3"}, "--slots: 3 are fewer than 4 workers, each of which"),
    ],
)
def test_what_workers_cannot_share_is_refused(flags: dict[str, str], problem: str) -> None:
    """Counts in one process's memory, grpcio's sockets, and slots that are not there; with the remedy."""
    (only,) = problems_of(**flags)

    assert only.startswith(problem)


def test_workers_over_a_shared_store_are_taken() -> None:
    """With as many slots, or none said."""
    assert decoded(workers="4", store="redis://h:1").workers == 4
    assert decoded(workers="4", store="redis://h:1", slots="4").slots == 4
    assert decoded(workers="1").store is None


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://collector:4317", "http://", "https:///"])
def test_an_endpoint_of_traces_is_a_url(endpoint: str) -> None:
    """With the scheme that says whether TLS is spoken."""
    (only,) = problems_of(traces_endpoint=endpoint)

    assert only.startswith(f"--traces-endpoint: {endpoint!r} is no endpoint; write http://HOST:4317")


def test_the_standard_s_variables_say_where_traces_go() -> None:
    """Ours comes first, then the one for traces, then the one for all signals."""
    general = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317"}
    traces = {**general, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://traces:4317"}

    assert environment_texts(general) == {"--traces-endpoint": ("http://all:4317",)}
    assert environment_texts(traces) == {"--traces-endpoint": ("http://traces:4317",)}
    assert environment_texts({**traces, "TIDEGATE_TRACES_ENDPOINT": "none"}) == {"--traces-endpoint": ("none",)}

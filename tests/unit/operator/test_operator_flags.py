"""What the operator can be told, and what its pages say."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from pathlib import Path

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from ratelimit_operator.admin import AdminServer, Page
from ratelimit_operator.flags import FLAGS, InvalidOptions, decode_options
from ratelimit_operator.logs import configure
from ratelimit_operator.metrics import CATALOGUE, render, render_operator_metrics_reference
from ratelimit_service.addresses import Address


def _problems(**texts: str) -> list[str]:
    with pytest.raises(InvalidOptions) as caught:
        decode_options({f"--{name.replace('_', '-')}": (text,) for name, text in texts.items()})
    return list(caught.value.problems)


def test_the_defaults_are_whole() -> None:
    """Nothing has to be said."""
    options = decode_options({})

    assert (options.xds, options.admin) == (Address("0.0.0.0", 18002), Address("0.0.0.0", 8080))
    assert (options.list_interval_s, options.debounce_s) == (60.0, 0.2)
    assert options.scope.release_namespace == "tidegate-system"
    assert options.scope.reads_labels


def test_all_problems_are_told_at_once() -> None:
    """Each with its flag."""
    problems = _problems(
        xds="nowhere",
        admin="unix:/tmp/x",
        namespaces="A_B",
        controller_name="-",
        secret_mount="x",
        list_interval="soon",
        lease_renew="20s",
        log_level="loud",
        xds_tls_cert="/no/such/file",
        xds_client_san="rls",
        xds_canary="maybe",
    )

    named = sorted({each.partition(":")[0] for each in problems})
    assert named == [
        "--admin", "--controller-name", "--lease-renew", "--list-interval", "--log-level", "--namespaces",
        "--secret-mount", "--xds", "--xds-canary", "--xds-client-san", "--xds-tls-cert",
    ]  # fmt: skip


def test_tls_files_go_together(tmp_path: Path) -> None:
    """A certificate without its key serves nobody."""
    (tmp_path / "a.pem").write_text("x")

    assert _problems(xds_tls_cert=str(tmp_path / "a.pem")) == [
        "--xds-tls-cert: goes with --xds-tls-key and --xds-client-ca: all three, or none"
    ]


def test_named_namespaces_mean_that_labels_cannot_be_read() -> None:
    """A Role of a few namespaces sees no namespace."""
    scope = decode_options({"--namespaces": ("a", "b")}).scope

    assert scope.covers("a")
    assert not scope.covers("c")
    assert not scope.reads_labels


def test_the_namespace_of_a_pod_is_the_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the downward API gives it."""
    monkeypatch.setenv("POD_NAMESPACE", "limits")

    assert decode_options({}).scope.release_namespace == "limits"


def test_every_flag_has_an_environment_variable() -> None:
    """`--a-b` is `TIDEGATE_A_B`, no two alike."""
    names = [flag.environment[0] for flag in FLAGS]

    assert len(set(names)) == len(FLAGS)
    assert all(re.fullmatch(r"TIDEGATE_[A-Z_]+", name) for name in names)


def test_metrics_are_prometheus_text() -> None:
    """Read by its own parser, escapes included."""
    text = render(
        [("leader", {}, 1.0), ("status_writes_total", {"result": 'a"b\\c\nd'}, 3), ("propagation_seconds", {}, 0.25)]
    )

    families = {each.name: each for each in text_string_to_metric_families(text)}
    assert families["tidegate_operator_leader"].samples[0].value == 1.0
    assert families["tidegate_operator_status_writes"].samples[0].labels == {"result": 'a"b\\c\nd'}
    assert families["tidegate_operator_propagation_seconds"].samples[0].value == 0.25


def test_every_metric_is_in_the_reference() -> None:
    """With its type and a sentence."""
    page = render_operator_metrics_reference()

    assert all(f"| `tidegate_operator_{name}` | {each.kind} |" in page for name, each in CATALOGUE.items())
    assert all(each.help.endswith(".") for each in CATALOGUE.values())


def test_pages_are_served_over_http() -> None:
    """Known pages, unknown ones, other methods, and a client that says nothing useful."""

    async def ask(text: bytes) -> bytes:
        server = AdminServer(Address("127.0.0.1", 0), {"/livez": lambda: Page("200 OK", "ok\n")})
        await server.start()
        host, _, port = server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(text)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        await server.stop()
        return answer

    assert asyncio.run(ask(b"GET /livez?x HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\nok\n")
    assert b" 404 Not Found\r\n" in asyncio.run(ask(b"GET /nope HTTP/1.1\r\n\r\n"))
    assert b" 405 Method Not Allowed\r\n" in asyncio.run(ask(b"POST /livez HTTP/1.1\r\n\r\n"))
    assert asyncio.run(ask(b"HEAD /livez HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")
    assert asyncio.run(ask(b"GET /livez")) == b""
    assert asyncio.run(ask(b"x" * 20_000)) == b""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_log_is_one_line_per_event(log_format: str) -> None:
    """Ours and those of libraries."""
    stream = io.StringIO()
    configure(log_format, "info", stream)

    structlog.get_logger("x").info("pushed", version="abc")
    logging.getLogger("library").warning("odd")
    logging.getLogger("kopf.x").info("a watch begins")

    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "pushed" in lines[0]
    assert "abc" in lines[0]
    if log_format == "json":
        assert json.loads(lines[1])["event"] == "odd"

"""The real process: `tidegate serve` from start to end, asked as users ask it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ratelimit_service.assembly.transports import TRANSPORTS
from ratelimit_service.transport.client import ask
from ratelimit_service.wire.rls.messages import Descriptor, Request
from support.certificates import Authority
from support.service_process import check, serving, tidegate

POLICY = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: checkout, namespace: shop}
spec:
  domain: shop.checkout
  rules:
  - name: per-user
    match: [{key: user, type: Any}]
    limits: [{requests: 2, window: 1h}]
"""
LATE = Request(domain=b"shop.checkout", descriptors=(Descriptor(entries=((b"user", b"late"),)),))


@pytest.fixture(params=sorted(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport that the service has."""
    return str(request.param)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A folder with one policy."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "checkout.yaml").write_text(POLICY)
    return folder


def test_what_is_printed_can_be_tried(tmp_path: Path, policies: Path, transport: str) -> None:
    """The ready text's own command asks the service and shows the limit being reached."""
    with serving(tmp_path, transport=transport) as running:
        tried = re.search(r"try: tidegate (.*)", running.output())
        assert tried
        done = tidegate(*tried[1].split())
        counted = running.page("/metrics")[1]

    assert done.returncode == 0
    assert "overall: 2 OK, 2 OVER_LIMIT" in done.stdout
    assert 'tidegate_decisions_total{domain="shop.checkout",rule="per-user",result="ok"} 2' in counted
    assert 'tidegate_decisions_total{domain="shop.checkout",rule="per-user",result="over"} 2' in counted
    assert "tidegate_request_duration_seconds_count 4\n" in counted


def test_sigterm_ends_with_0_and_no_call_is_lost(tmp_path: Path, policies: Path, transport: str) -> None:
    """During the delay health says NOT_SERVING, calls are answered, and /readyz is 503; then it exits by itself."""
    with serving(tmp_path, "--drain-delay", "1s", "--drain-grace", "5s", transport=transport) as running:
        ready_before = running.page("/readyz")[0]
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        running.until("/readyz to refuse", lambda: running.page("/readyz")[0] == 503)
        # Not by a process of its own, which may need longer to start than the delay lasts.
        during = asyncio.run(ask(running.grpc, LATE, timeout_s=5))
        code = running.process.wait(timeout=10)
        took_s = time.monotonic() - began

    assert ready_before == 200
    assert not during.over
    assert code == 0
    assert 1.0 <= took_s < 6.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path: Path, policies: Path, number: signal.Signals) -> None:
    """Whoever presses Ctrl-C twice does not wait for the delay."""
    with serving(tmp_path, "--drain-delay", "20s") as running:
        running.process.send_signal(number)
        running.until("the drain", lambda: running.page("/readyz")[0] == 503)
        code = running.stop(number)

    assert code == -number


def test_all_problems_of_flags_are_told_at_once() -> None:
    """Flags and environment together: exit code 2, one line each."""
    done = tidegate(
        "serve", "--policies", "/no/such", "--store", "redis://x:0", "--deadline", "soon",
        environment={"TIDEGATE_GRPC": "nowhere", "NEAR_LIMIT_RATIO": "7", "TIDEGATE_SHADOW_MODE": "perhaps"},
    )  # fmt: skip

    assert done.returncode == 2
    assert done.stdout == ""
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == [
        "tidegate serve",
        "--policies",
        "--store",
        "--grpc",
        "--deadline",
        "--shadow-mode",
        "--near-limit-ratio",
    ]


def test_an_unknown_flag_is_refused() -> None:
    """With click's own exit code, which is 2 too."""
    done = tidegate("serve", "--polices", "x")

    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_bad_policies_at_start_exit_with_2_and_every_problem(tmp_path: Path, policies: Path) -> None:
    """Nothing is served with half a set."""
    (policies / "wrong.yaml").write_text(POLICY.replace("checkout", "wrong").replace("window: 1h", "windw: 1h"))
    (policies / "worse.yaml").write_text("kind: Nonsense\n")
    done = tidegate("serve", "--policies", str(policies), "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0")

    assert done.returncode == 2
    assert "problems in policies" in done.stderr
    assert "wrong.yaml" in done.stderr
    assert "worse.yaml" in done.stderr


def test_started_without_policies_it_becomes_ready_when_they_are_good(tmp_path: Path, policies: Path) -> None:
    """503 and UNAVAILABLE until then, each within a second of the change."""
    (policies / "checkout.yaml").write_text("kind: Nonsense\n")
    with serving(tmp_path, "--start-without-policies") as running:
        before = running.page("/readyz")
        asked = tidegate("check", "--target", running.grpc, "--domain", "shop.checkout", "user=a")
        (policies / "checkout.yaml").write_text(POLICY)
        took_s = running.until("readiness", lambda: running.page("/readyz")[0] == 200)
        after = check(running, "--domain", "shop.checkout", "user=a")

    assert before[0] == 503
    assert "checkout.yaml" in before[1]
    assert asked.returncode == 1
    assert "UNAVAILABLE" in asked.stderr
    assert took_s < 2.0
    assert "overall: OK" in after


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """Without policies at the start, it may be mounted later; the log does not claim that something was in force."""
    folder = tmp_path / "later"
    with serving(tmp_path, "--start-without-policies", policies=folder) as running:
        before = running.page("/readyz")
        logged = running.output()
        folder.mkdir()
        (folder / "checkout.yaml").write_text(POLICY)
        running.until("readiness", lambda: running.page("/readyz")[0] == 200)

    assert before == (503, f"not ready: no configuration\n{folder}: cannot be read: No such file or directory\n")
    assert "policies refused, nothing is in force" in logged


def test_a_reload_keeps_counts_and_a_bad_one_changes_nothing(tmp_path: Path, policies: Path) -> None:
    """2 of 2 are spent; with 3 there is one left. A set that is wrong is refused, told by /readyz, and 3 stays."""
    question = ("--domain", "shop.checkout", "user=ann", "--repeat", "3")
    with serving(tmp_path) as running:
        spent = check(running, *question)
        (policies / "checkout.yaml").write_text(POLICY.replace("requests: 2", "requests: 3"))
        running.until("the reload", lambda: "tidegate_config_loads_total 2\n" in running.page("/metrics")[1])
        raised = check(running, *question)
        (policies / "bad.yaml").write_text("kind: Nonsense\n")
        running.until("the refusal", lambda: "bad.yaml" in running.page("/readyz")[1])
        status = running.page("/readyz")[0]
        refused = check(running, "--domain", "shop.checkout", "user=bob", "--repeat", "4")

    assert "overall: 2 OK, 1 OVER_LIMIT" in spent
    assert "overall: 1 OK, 2 OVER_LIMIT" in raised
    assert status == 200
    assert "overall: 3 OK, 1 OVER_LIMIT" in refused


def test_every_flag_works_from_the_environment(tmp_path: Path, policies: Path) -> None:
    """A flag beats the environment; lists are parted; upstream's names work for the six."""
    environment = {
        "TIDEGATE_LOG_FORMAT": "console",
        "TIDEGATE_ADMIN_EXPOSE": "/json,/explain",
        "TIDEGATE_DRAIN_DELAY": "20s",
        "SHADOW_MODE": "true",
    }
    with serving(tmp_path, environment=environment) as running:
        shadowed = check(running, "--domain", "shop.checkout", "user=ann", "--repeat", "3")
        code = running.stop()

    assert "overall: 3 OK, 0 OVER_LIMIT" in shadowed
    assert "[info" in running.output()
    assert code == 0


def test_a_unix_socket_serves_like_a_port(tmp_path: Path, policies: Path, transport: str) -> None:
    """`--grpc unix:PATH`; both at once too."""
    path = f"unix:{tmp_path}/t.sock"
    with serving(tmp_path, grpc=path, transport=transport) as running:
        assert running.grpc == path
        answered = check(running, "--domain", "shop.checkout", "user=ann")

    assert "overall: OK" in answered


def test_an_address_that_is_taken_is_refused_by_name(tmp_path: Path, policies: Path) -> None:
    """Exit code 2 and the address, for gRPC and admin at once."""
    with serving(tmp_path) as running:
        done = tidegate("serve", "--policies", str(policies), "--grpc", running.grpc, "--admin", running.admin)

    assert done.returncode == 2
    assert "2 problems in addresses" in done.stderr
    assert running.grpc in done.stderr
    assert running.admin in done.stderr


def test_admin_pages_answer(tmp_path: Path, policies: Path) -> None:
    """Over loopback all of them, with something in them."""
    paths = ("/", "/livez", "/readyz", "/healthcheck", "/health/cache", "/metrics", "/rlconfig", "/debug/config")
    with serving(tmp_path) as running:
        pages = [running.page(path) for path in paths]

    assert [status for status, _ in pages] == [200] * len(paths)
    assert all(body for _, body in pages)


def test_json_decides_and_explain_does_not_count(tmp_path: Path, policies: Path) -> None:
    """Two questions to /explain leave the budget; three to /json spend it: 200, 200, 429."""
    question = json.dumps({"domain": "shop.checkout", "descriptors": [{"entries": [{"key": "user", "value": "json"}]}]})
    with serving(tmp_path) as running:
        explained = [running.page("/explain?domain=shop.checkout&entry=user=json") for _ in range(2)]
        asked = [running.page("/json", "POST", question) for _ in range(3)]
        bad = running.page("/json", "POST", "{")
        counters = json.loads(running.page("/counters?domain=shop.checkout")[1])

    assert [status for status, _ in explained] == [200, 200]
    assert "per-user" in explained[0][1]
    assert [status for status, _ in asked] == [200, 200, 429]
    assert bad[0] == 400
    assert [(row["rule"], row["used"]) for row in counters] == [("per-user", 2)]


def test_a_descriptor_of_no_utf8_is_counted(tmp_path: Path, policies: Path) -> None:
    """Bytes on the command line reach the service as they are."""
    with serving(tmp_path) as running:
        answered = check(running, "--domain", "shop.checkout", os.fsdecode(b"user=bo\xff"), "--repeat", "3")

    assert "overall: 2 OK, 1 OVER_LIMIT" in answered
    assert "user=bo\\xff" in answered


def test_compat_counts_what_it_denies(tmp_path: Path, policies: Path) -> None:
    """`--compat envoyproxy` is a mode of the whole process: fixed windows, upstream's errors."""
    (policies / "checkout.yaml").write_text(
        "domain: up\ndescriptors:\n- key: user\n  rate_limit: {unit: day, requests_per_unit: 2}\n"
    )
    with serving(tmp_path, "--compat", "envoyproxy") as running:
        answered = check(running, "--domain", "up", "user=ann", "--repeat", "3")
        refused = tidegate("check", "--target", running.grpc, "--domain", "", "user=ann")

    assert "2/day" in answered
    assert "overall: 2 OK, 1 OVER_LIMIT" in answered
    assert "UNKNOWN: rate limit domain must not be empty" in refused.stderr


def test_a_broken_handshake_writes_nothing(tmp_path: Path, policies: Path) -> None:
    """The log is lines of JSON: whoever reaches the port must not add others."""
    cert, key = Authority(tmp_path).issue("server")
    with serving(tmp_path, "--grpc-tls-cert", str(cert), "--grpc-tls-key", str(key)) as running:
        before = running.output()
        host, _, port = running.grpc.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while plain.recv(4096):
                pass
        after = running.output()

    assert after == before


def test_serve_needs_no_rich() -> None:
    """The tables of the other commands are theirs: a service without `rich` starts."""
    code = "import sys; sys.modules['rich'] = None; import ratelimit_service.cli.main, ratelimit_service.cli.serve"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert done.stderr == ""
    assert done.returncode == 0

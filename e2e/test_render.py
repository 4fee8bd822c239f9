"""What `tidegate render envoy` prints: a real Envoy loads every golden set, and obeys it where it is driven."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from e2e.support.caller import get
from e2e.support.envoy import Envoy, envoy
from e2e.support.processes import eventually
from e2e.support.rendered import set_objects, whole
from e2e.support.service import Service, service
from examples.demo.stage import envoy_binary
from ratelimit_service.cli.render import render
from support.certificates import Authority
from support.golden_sets import FOLDER, NAMES, SETS

Step = tuple[int, str, Mapping[str, str], list[int]]
"""How many requests, path, headers, and the statuses that they get."""

ANN, BOB = {"x-user": "ann"}, {"x-user": "bob"}


def rendered(name: str) -> dict[str, Any]:
    """A golden file."""
    return dict(yaml.safe_load((FOLDER / "golden" / f"{name}.yaml").read_text(encoding="utf-8")))


def objects(name: str) -> list[dict[str, Any]]:
    """The manifests of a set."""
    return set_objects((FOLDER / "sets" / f"{name}.yaml").read_text(encoding="utf-8"))


def test_envoy_loads_every_set(tmp_path: Path) -> None:
    """One by one, in the mode that checks a configuration as a start would."""
    refused = {}
    for path in SETS:
        config = whole(rendered(path.stem), objects(path.stem), service_port=1, upstream_port=2)
        file = tmp_path / f"{path.stem}.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        command = [str(envoy_binary()), "--mode", "validate", "-c", str(file), "--log-level", "error"]
        command.append("--use-dynamic-base-id")
        checked = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        if checked.returncode:
            refused[path.stem] = checked.stderr
    assert refused == {}


@contextmanager
def standing(folder: Path, name: str, upstream_port: int) -> Iterator[tuple[Envoy, Service]]:
    """The set in a running service, and Envoy configured with what was rendered for it."""
    manifests = [each for each in objects(name) if each["kind"] == "RateLimitPolicy"]
    with service(folder, manifests, "native") as asked:
        config = whole(rendered(name), objects(name), service_port=asked.grpc_port, upstream_port=upstream_port)
        with envoy(folder, config) as asking:
            yield asking, asked


DRIVEN: dict[str, list[Step]] = {
    "header-one-sequence": [
        (5, "/", {**ANN, "x-plan": "gold"}, [200, 200, 200, 200, 429]),
        (2, "/", {**ANN, "x-plan": "free"}, [200, 429]),
        (2, "/", {"x-plan": "free"}, [200, 200]),
    ],
    "query-parameter": [
        (3, "/?key=k1", {}, [200, 200, 429]),
        (1, "/?n=1&key=k1&key=k2", {}, [429]),
        (1, "/?key=%6b1", {}, [429]),
        (2, "/?keys=k1", {}, [200, 200]),
    ],
    "path": [
        (1, "/login?a=1", {}, [200]),
        (1, "/login?a=2", {}, [429]),
        (3, "/files/x", {}, [200, 200, 429]),
        (1, "/files/y?x", {}, [200]),
        (3, "/else", {}, [200, 200, 200]),
    ],
    "address": [
        (3, "/", {"x-forwarded-for": "203.0.113.9"}, [200, 200, 429]),
        (1, "/", {"x-forwarded-for": "203.0.113.10"}, [200]),
        (1, "/", {"x-forwarded-for": "2001:db8:0:7::1"}, [200]),
        (2, "/", {"x-forwarded-for": "2001:db8:0:7:ffff::2"}, [200, 429]),
        (1, "/", {"x-forwarded-for": "2001:db8:0:8::1"}, [200]),
    ],
    "address-whole": [
        (3, "/", {"x-forwarded-for": "2001:db8::1"}, [200, 200, 429]),
        (1, "/", {"x-forwarded-for": "2001:db8::2"}, [200]),
    ],
    "address-networks": [
        (2, "/", {"x-forwarded-for": "203.0.113.9"}, [200, 200]),
        (1, "/", {"x-forwarded-for": "203.0.113.77"}, [429]),
        (1, "/", {"x-forwarded-for": "203.0.114.9"}, [200]),
        (2, "/", {"x-forwarded-for": "2001:db8:0:7::1"}, [200, 200]),
        (1, "/", {"x-forwarded-for": "2001:db8:0:8::1"}, [429]),
    ],
    "address-exact": [
        (2, "/", {"x-forwarded-for": "203.0.113.9"}, [200, 429]),
        (2, "/", {"x-forwarded-for": "203.0.113.8"}, [200, 200]),
        (2, "/", {"x-forwarded-for": "2001:db8:0:7:a::"}, [200, 429]),
    ],
    "address-and-network": [
        (3, "/", {"x-forwarded-for": "203.0.113.9"}, [200, 200, 429]),
        (2, "/", {"x-forwarded-for": "203.0.113.8"}, [200, 429]),
    ],
    "metadata": [(3, "/", {"x-tenant": "acme"}, [200, 200, 429]), (2, "/", {"x-tenant": "initech"}, [200, 200])],
    "unicode": [(3, "/", {"x-street": "Gasse"}, [200, 200, 429])],
    "header-names": [(3, "/", {**ANN, "host": "a.example"}, [200, 200, 429]), (1, "/", {"host": "a.example"}, [200])],
    "replaces": [(1, "/", {}, [200]), (4, "/", {"x-plan": "gold"}, [200, 200, 200, 429]), (1, "/", {}, [429])],
    "route": [(3, "/api", ANN, [200, 200, 429]), (3, "/web", ANN, [200, 200, 200])],
    "gateway-and-route": [
        (3, "/api", ANN, [200, 200, 429]),
        (1, "/api", BOB, [200]),
        (2, "/other", {}, [200, 429]),
        (1, "/api", BOB, [429]),
    ],
    "same-shape": [(3, "/api", ANN, [200, 200, 429]), (2, "/other", ANN, [200, 429])],
    "listener": [
        (3, "/", {**ANN, "host": "b.example.com"}, [200, 200, 429]),
        (3, "/", {**ANN, "host": "a.example.com"}, [200, 200, 200]),
    ],
    "route-rule": [(3, "/api/write", ANN, [200, 200, 429]), (3, "/api/read", ANN, [200, 200, 200])],
    "defaults-patch": [(5, "/api", ANN, [200, 200, 200, 200, 429]), (2, "/other", ANN, [200, 429])],
    "defaults-atomic": [(4, "/api", ANN, [200, 200, 200, 429]), (2, "/web", {}, [200, 429])],
    "overrides-patch": [(3, "/api", ANN, [200, 200, 429]), (2, "/api", BOB, [200, 429])],
    "overrides-atomic": [(3, "/api", ANN, [200, 200, 429])],
    "conflict": [(3, "/api", ANN, [200, 200, 429])],
    "hostnames": [
        (2, "/api", {**ANN, "host": "a.example.com"}, [200, 200]),
        (2, "/api", {**ANN, "host": "b.example.com"}, [200, 429]),
    ],
    "wildcard-hostname": [(3, "/api", {**ANN, "host": "api.example.com"}, [200, 200, 429])],
    "local": [(3, "/", ANN, [200, 200, 429]), (2, "/", BOB, [200, 200]), (2, "/", {}, [200, 200])],
    "local-on-route": [
        (2, "/api", {"x-plan": "free"}, [200, 429]),
        (1, "/api", {"x-plan": "gold"}, [200]),
        (3, "/else", {}, [200, 200, 200]),
    ],
    "local-overridden": [(4, "/api", ANN, [200, 200, 200, 429]), (2, "/else", BOB, [200, 429])],
    "same-domain-other-source": [
        (3, "/", {**ANN, "x-account": "a"}, [200, 200, 429]),
        (3, "/", {"x-account": "a"}, [200] * 3),
    ],
    "two-targets": [(2, "/api", ANN, [200, 200]), (2, "/web", ANN, [200, 429])],
    "other-namespace": [(3, "/api", ANN, [200, 200, 429]), (2, "/", {}, [200, 429])],
    "every-level": [(3, "/api", ANN, [200, 200, 429]), (2, "/api", BOB, [200, 429]), (2, "/else", {}, [200, 429])],
}


@pytest.mark.parametrize("name", DRIVEN)
def test_requests_are_limited_as_the_set_says(name: str, tmp_path: Path, upstream_port: int) -> None:
    """Each step's statuses, in order, against one Envoy and one service; no call to the service fails."""
    with standing(tmp_path, name, upstream_port) as (asking, _):
        for count, path, headers, expected in DRIVEN[name]:
            seen = [get(asking.address, path, headers).status for _ in range(count)]
            assert (path, headers, seen) == (path, headers, expected)
        assert asking.stat("ratelimit.error") == 0


def test_a_flood_ends_in_envoy(tmp_path: Path, upstream_port: int) -> None:
    """What a local limit refuses, the service is never asked for."""
    with standing(tmp_path, "local", upstream_port) as (asking, asked):
        seen = [get(asking.address, headers=ANN).status for _ in range(10)]
        asked_for = asked.metric("tidegate_decisions_total", 'rule="per-user"')

    assert seen == [200, 200] + [429] * 8
    assert asked_for == 2


def test_a_grpc_call_over_the_limit_is_told_so(tmp_path: Path, upstream_port: int) -> None:
    """RESOURCE_EXHAUSTED (8), which clients do not try again at once, and not Envoy's own UNAVAILABLE."""
    call = {**ANN, "content-type": "application/grpc", "content-length": "0"}
    with standing(tmp_path, "grpc-route", upstream_port) as (asking, _):
        answers = [get(asking.address, "/shop.Orders/Place", call, method="POST") for _ in range(3)]

    assert [answer.headers.get("grpc-status") for answer in answers] == [None, None, "8"]


def test_answers_carry_the_fields_that_a_policy_asks_for(tmp_path: Path, upstream_port: int) -> None:
    """Nothing is configured in Envoy for them: the service's verdict brings them."""
    with standing(tmp_path, "response-headers", upstream_port) as (asking, _):
        answer = get(asking.address, headers=ANN)

    assert answer.headers["ratelimit"].startswith('"per-user";r=1')


def test_the_service_is_asked_over_mutual_tls(tmp_path: Path, upstream_port: int) -> None:
    """Envoy checks the service's address and shows a certificate; of another authority it trusts nothing."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    cert, key = authority.issue("service")
    shown = dict(zip(("--service-cert", "--service-key"), map(str, authority.issue("envoy")), strict=True))
    flags = ["--grpc-tls-cert", str(cert), "--grpc-tls-key", str(key), "--grpc-client-ca", str(authority.ca_path)]
    manifests = [each for each in objects("header-any") if each["kind"] == "RateLimitPolicy"]
    with service(tmp_path, manifests, "native", flags) as asked:
        for trusted, errors in ((authority, False), (other, True)):
            files = [word for pair in ({"--service-ca": str(trusted.ca_path)} | shown).items() for word in pair]
            done = CliRunner().invoke(render, ["envoy", str(FOLDER / "sets" / "header-any.yaml"), *files])
            assert done.exit_code == 0, done.output
            made = yaml.safe_load(done.stdout)
            config = whole(made, objects("header-any"), service_port=asked.grpc_port, upstream_port=upstream_port)
            with envoy(tmp_path, config) as asking:
                assert get(asking.address, headers=ANN).status == 200
                assert (asking.stat("ratelimit.ok") == 1) is not errors
                assert (asking.stat("ratelimit.error") == 1) is errors


@pytest.mark.parametrize(("name", "without_service"), [("header-any", 200), ("service-error-deny", 500)])
def test_the_failure_mode_is_the_policys(name: str, without_service: int, tmp_path: Path, upstream_port: int) -> None:
    """The service is ended by its own id; then requests pass, or none does."""
    with standing(tmp_path, name, upstream_port) as (asking, asked):
        limited = [get(asking.address, headers=ANN).status for _ in range(3)]
        asked.process.stop()
        eventually("Envoy to notice", lambda: get(asking.address, headers=BOB).status == without_service)
        away = [get(asking.address, headers=BOB).status for _ in range(3)]

    assert limited == [200, 200, 429]
    assert away == [without_service] * 3


def test_more_than_enough_sets_are_driven() -> None:
    """The names are sets, and at least fifteen are driven."""
    assert set(DRIVEN) <= set(NAMES)
    assert len(DRIVEN) >= 15

"""A service process that ends, or is killed, and its successor on the same Redis."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.redis_servers import RedisServer, running_server
from support.service_process import START_S, Running, check, serving

POLICY = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: checkout, namespace: shop}
spec:
  domain: shop.checkout
  failure: {onStoreError: Closed}
  rules:
  - {name: many, match: [{key: many, type: Any}], limits: [{requests: 40, window: 24h}]}
  - {name: free, match: [{key: free, type: Any}], limits: [{requests: 1000000, window: 24h}]}
"""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """A real server."""
    with running_server() as server:
        yield server


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A folder with one policy."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "checkout.yaml").write_text(POLICY)
    return folder


def flags(redis: RedisServer, database: int, folder: Path) -> tuple[str, ...]:
    """Shared counts, hot keys in a file, and deadlines that no loaded machine misses."""
    store = f"redis://{redis.endpoint}/{database}?command_timeout=5s&connect_timeout=5s"
    return ("--store", store, "--deadline", "20s", "--warm-file", str(folder / "warm"))


def value(running: Running, series: str) -> float:
    """A series of the metrics, 0 where it is not there."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", running.page("/metrics")[1], re.MULTILINE)
    return float(found[1]) if found else 0.0


def connected(running: Running) -> None:
    """Wait for the server."""
    up = re.compile(r"^tidegate_store_node_up\{.*\} 1$", re.MULTILINE).search
    running.until("the store", lambda: up(running.page("/metrics")[1]) is not None, START_S)


def ok_of(running: Running, rule: str) -> float:
    """Descriptors that passed."""
    return value(running, f'tidegate_decisions_total{{domain="shop.checkout",rule="{rule}",result="ok"}}')


def ask(running: Running, rule: str, times: int) -> None:
    """So many calls, one after the other."""
    check(running, "--domain", "shop.checkout", f"{rule}=ann", "--repeat", str(times), "--timeout", "25")


def test_after_a_crash_nothing_is_taken_for_granted(tmp_path: Path, policies: Path, redis: RedisServer) -> None:
    """What the dead process held stays counted; its successor holds nothing, and both together keep the limit."""
    more = flags(redis, 1, tmp_path)
    with serving(tmp_path, *more, transport="native") as running:
        connected(running)
        ask(running, "many", 12)
        before = ok_of(running, "many")
        running.process.kill()
        running.process.wait(START_S)
    with serving(tmp_path, *more, transport="native") as running:
        connected(running)
        at_first = value(running, 'tidegate_store_hits_total{profile="default",fate="granted"}')
        ask(running, "many", 60)
        after = ok_of(running, "many")
        running.stop()

    assert before == 12
    assert at_first == 0
    assert after > 0
    assert before + after <= 40


def test_after_a_restart_hot_keys_are_leased_before_they_are_asked_for(
    tmp_path: Path, policies: Path, redis: RedisServer
) -> None:
    """By what the file says is hot; the first request then waits for nobody."""
    more = flags(redis, 2, tmp_path)
    granted = 'tidegate_store_hits_total{profile="default",fate="granted"}'
    with serving(tmp_path, *more, transport="native") as running:
        connected(running)
        ask(running, "free", 300)
        code = running.stop()
    kept = (tmp_path / "warm").stat()
    with serving(tmp_path, *more, transport="native") as running:
        running.until("a lease", lambda: value(running, granted) > 0, START_S)
        running.stop()

    assert code == 0
    assert kept.st_mode & 0o777 == 0o600
    assert kept.st_size > 0

"""A service process that ends, or is killed, and its successor on the same Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.redis_servers import RedisServer
from support.service_process import START_S, Running, check, policy_folder, serving

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


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A folder with one policy."""
    return policy_folder(tmp_path, POLICY)


def flags(redis: RedisServer, database: int, folder: Path) -> tuple[str, ...]:
    """Shared counts, hot keys in a file, and deadlines that no loaded machine misses."""
    store = f"redis://{redis.endpoint}/{database}?command_timeout=5s&connect_timeout=5s"
    return ("--store", store, "--deadline", "20s", "--warm-file", str(folder / "warm"))


def ok_of(running: Running, rule: str) -> float:
    """Descriptors that passed."""
    return running.value(f'tidegate_decisions_total{{domain="shop.checkout",rule="{rule}",result="ok"}}')


def ask(running: Running, rule: str, times: int) -> None:
    """So many calls, one after the other."""
    check(running, "--domain", "shop.checkout", f"{rule}=ann", "--repeat", str(times), "--timeout", "25")


def test_after_a_crash_nothing_is_taken_for_granted(tmp_path: Path, policies: Path, redis: RedisServer) -> None:
    """What the dead process held stays counted; its successor holds nothing, and both together keep the limit."""
    more = flags(redis, 1, tmp_path)
    with serving(tmp_path, *more, transport="native") as running:
        running.until_connected()
        ask(running, "many", 12)
        before = ok_of(running, "many")
        running.process.kill()
        running.process.wait(START_S)
    with serving(tmp_path, *more, transport="native") as running:
        running.until_connected()
        at_first = running.value('tidegate_store_hits_total{profile="default",fate="granted"}')
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
        running.until_connected()
        ask(running, "free", 300)
        code = running.stop()
    kept = (tmp_path / "warm").stat()
    with serving(tmp_path, *more, transport="native") as running:
        running.until("a lease", lambda: running.value(granted) > 0, START_S)
        running.stop()

    assert code == 0
    assert kept.st_mode & 0o777 == 0o600
    assert kept.st_size > 0

"""The blocking cache: the same methods from any thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ratelimit_service.cache.health import HealthStatus
from ratelimit_service.cache.profiles import CacheSettings
from ratelimit_service.cache.sync import SyncCacheService
from ratelimit_service.cache.warming import WarmingReport


def test_every_method_works_from_a_thread_without_a_loop() -> None:
    """One walk through all of them."""
    with SyncCacheService[Any].from_profile("sessions") as cache:
        cache.set("k", 1, ttl_ms=60_000, tags=("t",))
        cache.set_many({"a": 2, "b": 3})
        assert cache.get("k") == 1
        assert cache.get_many(["a", "b", "x"]) == {"a": 2, "b": 3}
        assert cache.get_or_load("loaded", lambda: "v") == "v"
        assert cache.delete("a")
        assert cache.invalidate("b").reached
        assert cache.invalidate_tag("t").reached
        assert cache.invalidate_prefix("lo").reached
        assert cache.get_many(["k", "a", "b", "loaded"]) == {}
        told: list[WarmingReport] = []
        assert cache.warm(["w1", "w2"], str.upper, progress=told.append).warmed == 2
        assert told[-1].done == 2
        assert cache.warm(["w1", "w3"]).skipped == 2
        assert cache.get("w1") == "W1"
        assert cache.health().status is HealthStatus.HEALTHY
        assert cache.stats().counts["loads"] == 3
        assert len(cache.metrics()) > 20
        assert cache.clear().reached
        assert cache.get("w1") is None
    cache.close()
    with pytest.raises(RuntimeError, match="closed"):
        cache.get("k")


def test_many_threads_cause_one_load() -> None:
    """Loaders block in threads of their own, and each key is loaded once."""
    loads: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    def load() -> str:
        loads.append(1)
        entered.set()
        assert go_on.wait(30)
        return "v"

    with SyncCacheService[Any](CacheSettings()) as cache, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(cache.get_or_load, "k", load) for _ in range(8)]
        assert entered.wait(30)
        go_on.set()
        results = {call.result(30) for call in calls}

    assert (results, len(loads)) == ({"v"}, 1)


def test_an_error_of_the_loader_reaches_the_caller_and_a_bad_setting_the_builder() -> None:
    """Errors cross the threads as they are."""
    with SyncCacheService[Any](CacheSettings()) as cache, pytest.raises(ZeroDivisionError):
        cache.get_or_load("k", lambda: 1 // 0)
    with pytest.raises(ValueError, match="at least 1 entry"):
        SyncCacheService[Any](CacheSettings(max_entries=0))


def test_the_loops_own_thread_may_not_wait_for_itself() -> None:
    """Progress is told on the loop's thread: a blocking call from there is refused rather than hanging for ever."""
    errors: list[str] = []

    with SyncCacheService[Any](CacheSettings()) as cache:

        def progress(report: WarmingReport) -> None:
            with pytest.raises(RuntimeError) as caught:
                cache.get("k")
            errors.append(str(caught.value))

        cache.warm(["k"], str.upper, progress=progress)

    assert len(errors) == 1

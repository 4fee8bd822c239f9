"""Django's own contract of a cache backend, and what is promised beyond it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheKey

from ratelimit_service.cache.health import HealthStatus
from ratelimit_service.integrations.django_cache import TidegateCache
from support.redis_servers import running_server

BACKEND = "ratelimit_service.integrations.django_cache.TidegateCache"


@pytest.fixture
def cache() -> Iterator[Any]:
    """The default cache, as Django makes it from settings."""
    if not settings.configured:
        settings.configure(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": "sessions", "TIMEOUT": 60}})
    default = caches["default"]
    default.clear()
    yield default
    default.clear()


def test_values_come_back_and_none_is_one(cache: Any) -> None:
    """What msgpack carries; a missing key gives the default."""
    for value in (None, 0, "text", b"bytes", [1, {"a": 2.5}], {"k": [None]}):
        cache.set("k", value)
        assert cache.get("k", "default") == value
        assert cache.has_key("k")
        assert "k" in cache
    assert cache.get("missing", "default") == "default"
    assert not cache.has_key("missing")


def test_several_keys_go_at_once(cache: Any) -> None:
    """Set, get and delete; a timeout of 0 removes."""
    assert cache.set_many({"a": 1, "b": None}) == []
    assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": None}
    cache.delete_many(["a"])
    assert cache.get_many(["a", "b"]) == {"b": None}
    cache.set_many({"b": 2}, timeout=0)
    assert cache.get("b") is None
    cache.set("k", 1)
    cache.set("k", 2, timeout=-1)
    assert cache.get("k") is None


def test_versions_are_different_keys(cache: Any) -> None:
    """And are moved by Django's own methods."""
    cache.set("k", 1, version=1)
    cache.set("k", 2, version=2)

    assert (cache.get("k"), cache.get("k", version=2)) == (1, 2)
    assert cache.delete("k", version=2)
    assert not cache.delete("k", version=2)
    assert cache.incr_version("k") == 2
    assert (cache.get("k"), cache.get("k", version=2)) == (None, 1)


def test_counting_touching_and_loading_work(cache: Any) -> None:
    """`incr`, `decr`, `touch`, `get_or_set`, with timeouts None and as set."""
    cache.set("n", 1)
    assert cache.incr("n", 4) == 5
    assert cache.decr("n") == 4
    assert cache.touch("n", None)
    assert not cache.touch("missing")
    assert cache.get_or_set("l", lambda: "loaded", 30) == "loaded"
    assert cache.get_or_set("l", lambda: "again") == "loaded"
    with pytest.raises(ValueError, match="missing"):
        cache.incr("missing")


def test_a_key_is_added_once_by_however_many_threads(cache: Any) -> None:
    """Exactly one of twenty that begin together; adding for no time adds nothing."""
    barrier = threading.Barrier(20)

    def add(number: int) -> bool:
        barrier.wait(timeout=60)
        return bool(cache.add("once", number))

    with ThreadPoolExecutor(20) as pool:
        added = list(pool.map(add, range(20)))

    assert sum(added) == 1
    assert cache.get("once") == added.index(True)
    assert cache.add("never", 1, timeout=0)
    assert cache.get("never") is None


def test_bad_keys_warn_as_django_has_it(cache: Any) -> None:
    """The validation is Django's."""
    with pytest.warns(RuntimeWarning, match="memcached"):
        cache.set("a key", 1)
    assert issubclass(InvalidCacheKey, ValueError)


def test_the_cache_itself_is_there_for_health_and_tags(cache: Any) -> None:
    """All backends of one profile in a process share it; without a location it is that of responses."""
    assert cache.service.health().status is HealthStatus.HEALTHY
    assert TidegateCache("sessions", {}).service is cache.service
    assert TidegateCache("", {"OPTIONS": {}}).service.health().profile == "api-responses"


def _in_a_fork(answers: Any) -> None:
    backend = TidegateCache("sessions", {})
    backend.set("fork", "own")
    answers.put((backend.get("fork"), backend.get("before")))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_opens_its_own(cache: Any) -> None:
    """The parent's event loop does not run there; what it had in memory is the parent's."""
    cache.set("before", 1)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    worker = context.Process(target=_in_a_fork, args=(answers,))
    worker.start()
    assert answers.get(timeout=60) == ("own", None)
    worker.join(timeout=60)
    assert cache.get("fork") is None


def test_replicas_on_one_redis_add_a_key_once(tmp_path: Any) -> None:
    """Two profiles stand for two processes; a value that msgpack cannot carry is refused by name."""
    manifest = """\
apiVersion: tidegate.dev/v1alpha1
kind: CacheProfile
metadata: {{name: {name}, namespace: shop}}
spec:
  preset: Sessions
  store: {{type: Redis, endpoints: ["{endpoint}"], timeouts: {{connect: 10s, command: 10s}}}}
  l2: {{enabled: true}}
"""
    with running_server() as server:
        backends = []
        for name in ("one", "two"):
            path = tmp_path / f"{name}.yaml"
            path.write_text(manifest.format(name=name, endpoint=server.endpoint))
            backends.append(TidegateCache(str(path), {"TIMEOUT": 60}))
        barrier = threading.Barrier(2)

        def add(backend: Any) -> bool:
            barrier.wait(timeout=60)
            return bool(backend.add("once", 1))

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(add, backends)) == [False, True]
        assert [backend.get("once") for backend in backends] == [1, 1]
        with pytest.raises(Exception, match="msgpack"):
            backends[0].set("k", object())
        for backend in backends:
            backend.service.close()

"""Policies change under load and no call fails."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from pathlib import Path
from typing import Self

from e2e.support.caller import get, statuses
from e2e.support.envoy import Filter, actions, bootstrap, envoy, header, route
from e2e.support.policies import any_of, policy, rule
from e2e.support.processes import eventually
from e2e.support.service import Service, service

DOMAIN = "e2e.reload"
RELOADS = 10


def policies(limit: int, more: int = 50) -> list[dict[str, object]]:
    """The policy under test among others, so that a reload has something to do."""
    others = [policy(f"{DOMAIN}.{number}", rule("per-user", any_of("user"), limit)) for number in range(more)]
    return [policy(DOMAIN, rule("per-user", any_of("user"), limit), rule("load", any_of("load"), 10**6)), *others]


class Load:
    """Requests in a closed loop on a thread, until stopped; counts statuses."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.seen: Counter[int] = Counter()
        self._address = address
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.seen[get(self._address, headers={"x-load": "1"}).status] += 1


def has_loaded(asked: Service, sets: int) -> bool:
    """Whether so many sets of policies have been taken, the first one included."""
    return asked.metric("tidegate_config_loads_total") >= sets


def test_reloads_under_load_lose_no_call(tmp_path: Path, transport: str, upstream_port: int) -> None:
    """Ten changes of 51 policies while requests flow: each is taken, every request is answered 200."""
    with service(tmp_path, policies(2), transport) as asked:
        config = bootstrap(
            service_port=asked.grpc_port,
            upstream_port=upstream_port,
            filter_=Filter(DOMAIN, deny=True, timeout="5s"),
            routes=[route("/")],
            vhost_limits=[actions(header("x-user", "user")), actions(header("x-load", "load"))],
        )
        with envoy(tmp_path, config) as asking:
            with Load(asking.address) as load:
                for number in range(RELOADS):
                    asked.write(policies(3 + number))
                    eventually("the reload", functools.partial(has_loaded, asked, number + 2), 5)
            errors = asking.stat("ratelimit.error")

    assert set(load.seen) == {200}
    assert load.seen[200] > RELOADS
    assert errors == 0


def test_a_raised_limit_keeps_the_count_and_a_bad_set_keeps_the_limit(
    tmp_path: Path, transport: str, upstream_port: int
) -> None:
    """2 spent of 2, then the limit is 3: one more. Then a set that is wrong is refused whole, and 3 stays."""
    with service(tmp_path, policies(2, more=0), transport) as asked:
        config = bootstrap(
            service_port=asked.grpc_port,
            upstream_port=upstream_port,
            filter_=Filter(DOMAIN, deny=True, timeout="5s"),
            routes=[route("/")],
            vhost_limits=[actions(header("x-user", "user"))],
        )
        with envoy(tmp_path, config) as asking:
            ann = {"x-user": "ann"}
            before = statuses(asking.address, 3, headers=ann)
            asked.write(policies(3, more=0))
            eventually("the reload", lambda: has_loaded(asked, 2), 5)
            raised = statuses(asking.address, 2, headers=ann)

            (asked.policies / "bad.yaml").write_text("kind: Nonsense\n", encoding="utf-8")
            eventually("the refusal", lambda: asked.metric("tidegate_config_load_errors_total") > 0, 5)
            refused = statuses(asking.address, 4, headers={"x-user": "bob"})
            ready = asked.page("/readyz")

    assert before == [200, 200, 429]
    assert raised == [200, 429]
    assert refused == [200, 200, 200, 429]
    assert "bad.yaml" in ready

"""An Envoy in front of an upstream, which asks for each `x-user` in the domain shop.checkout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.support import envoy as proxies
from examples.demo.upstream import upstream


@contextmanager
def front(folder: Path, service_port: int) -> Iterator[proxies.Envoy]:
    """A running one, gone when the block ends; its cluster of the service has the name that the board looks for."""
    folder.mkdir(parents=True, exist_ok=True)
    with upstream() as upstream_port:
        config = proxies.bootstrap(
            service_port=service_port,
            upstream_port=upstream_port,
            filter_=proxies.Filter("shop.checkout"),
            routes=[proxies.route("/")],
            vhost_limits=[proxies.actions(proxies.header("x-user", "user"))],
        )
        text = json.dumps(config).replace('"service"', '"tidegate"')
        with proxies.envoy(folder, json.loads(text)) as running:
            yield running

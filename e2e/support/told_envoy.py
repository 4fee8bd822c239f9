"""An Envoy whose listeners and clusters come from files, changed while it runs; and traffic that goes on meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.support.caller import get
from e2e.support.envoy import Config

_TYPES = {
    "listeners": "type.googleapis.com/envoy.config.listener.v3.Listener",
    "clusters": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
}


class Told:
    """Files that say what `static_resources` would.

    Args:
        folder: Where they are.
        config: A static configuration.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder = folder
        self.tell(config)
        self.bootstrap: Config = {
            "node": {"id": "told", "cluster": "told"},
            "dynamic_resources": {
                f"{short}_config": {
                    "resource_api_version": "V3",
                    "path_config_source": {"path": str(folder / f"{name}.told.json")},
                }
                for short, name in (("lds", "listeners"), ("cds", "clusters"))
            },
            "admin": config["admin"],
        }

    def tell(self, config: Mapping[str, Any]) -> None:
        """Say something else; Envoy sees a file that is moved into place."""
        # Clusters first: a listener may name a new one.
        for name in ("clusters", "listeners"):
            resources = [{"@type": _TYPES[name], **each} for each in config["static_resources"][name]]
            draft = self._folder / f"{name}.draft.json"
            draft.write_text(json.dumps({"resources": resources}), encoding="utf-8")
            draft.rename(self._folder / f"{name}.told.json")


@contextmanager
def traffic(address: tuple[str, int], headers: Mapping[str, str]) -> Iterator[list[int]]:
    """The statuses of requests sent one after the other while the block runs."""
    seen: list[int] = []
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            seen.append(get(address, "/", headers).status)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()

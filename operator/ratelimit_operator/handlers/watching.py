"""kopf as a watcher and nothing else: events go to the control loop, nothing is written (no finalizers, no patches).

It runs on a thread and a loop of its own, because it cancels other tasks of its loop when it ends. What it cannot get
over (an error in a stream, 403, 5xx past its retries) ends it; it is started anew, and each start asks for a list.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import kopf
import msgspec
import structlog

from ratelimit_operator.cluster.access import Access

_BACKOFF_S: Final = (1.0, 2.0, 5.0, 10.0)
_GOOD_S: Final = 60.0

OnEvent = Callable[[str, str | None, Mapping[str, Any]], None]
"""Takes (kind's plural, type, object); called on the watcher's thread. Type None: the object was listed."""


class Watched(msgspec.Struct, frozen=True):
    """Kinds that are watched together.

    Attributes:
        kinds: (group, version, plural).
        namespaces: Where, empty: in the whole cluster.
        names: Plural → the one object that is watched, by its name.
        scans: Whether kinds that are installed later are found.
    """

    kinds: Sequence[tuple[str, str, str]]
    namespaces: Sequence[str] = ()
    names: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    scans: bool = False


class Watcher:
    """A thread that watches until it is stopped.

    Args:
        access: Where the API server is.
        watched: What is watched; each member in a kopf of its own.
        on_event: Is told of every event.
        on_restart: Called on the thread whenever a watch begins anew.
    """

    def __init__(
        self, access: Access, watched: Sequence[Watched], on_event: OnEvent, on_restart: Callable[[], None]
    ) -> None:
        self._access = access
        self._watched = watched
        self._on_event = on_event
        self._on_restart = on_restart
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._log = structlog.get_logger("tidegate.watch")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End, and wait for the end."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs, or has not begun yet."""
        return self._thread.ident is None or self._thread.is_alive()

    def _run(self) -> None:
        asyncio.run(self._watch_all())

    async def _watch_all(self) -> None:
        await asyncio.gather(*(self._watch(each) for each in self._watched))

    async def _watch(self, watched: Watched) -> None:
        failures = 0
        while not self._stop.is_set():
            began_s = time.monotonic()
            self._on_restart()
            try:
                await kopf.operator(
                    registry=self._registry(watched),
                    settings=_settings(watched),
                    standalone=True,
                    # Else it asks for the user's name, and a pod's user has none.
                    identity=cast("Any", "tidegate-operator"),
                    clusterwide=not watched.namespaces,
                    namespaces=tuple(watched.namespaces),
                    stop_flag=self._stop,
                )
            except Exception as error:  # noqa: BLE001 — whatever ended it, it has to begin anew
                self._log.warning("watch ended", reason=str(error) or type(error).__name__)
            if time.monotonic() - began_s > _GOOD_S:
                failures = 0
            if not self._stop.is_set():
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                failures += 1

    def _registry(self, watched: Watched) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        def login(**_: Any) -> kopf.ConnectionInfo:
            shown = self._access.credentials()
            return kopf.ConnectionInfo(
                server=shown.server,
                ca_path=shown.ca_path,
                insecure=shown.insecure,
                token=shown.token or None,
                certificate_path=shown.cert_path,
                private_key_path=shown.key_path,
            )

        for group, version, plural in watched.kinds:
            self._handle(registry, group, version, plural)
        return registry

    def _handle(self, registry: kopf.OperatorRegistry, group: str, version: str, plural: str) -> None:
        @kopf.on.event(group, version, plural, registry=registry, id=f"seen-{plural}")
        def seen(event: Mapping[str, Any], **_: Any) -> None:
            self._on_event(plural, event["type"], event["object"])


def _settings(watched: Watched) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = not watched.scans
    settings.watching.server_timeout = 300
    settings.watching.chunk_size = 500
    # A worker per object ends as soon as it has nothing to do: thousands that linger are tens of megabytes.
    settings.queueing.idle_timeout = 0.1
    settings.networking.request_timeout = 30
    # 5xx and silence: a few tries, then the watch begins anew with a list.
    settings.networking.error_backoffs = (1, 2, 5)
    for plural, name in watched.names.items():
        settings.watching.field_selectors[plural] = f"metadata.name={name}"
    for plural, selector in watched.labels.items():
        settings.watching.label_selectors[plural] = selector
    return settings

"""Keeps the ConfigMaps of profiles as they have to be, in the namespaces where that is allowed.

What is there is found by a label, at the start and at each complete look: what was edited is written again, what no
profile wants any more is removed. Only metadata is read. Only the holder of the Lease writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from ratelimit_operator.api.objects import MANAGER
from ratelimit_operator.cluster.api_server import CONFIG_MAPS, ApiFailure, ApiServer, ObjectMeta
from ratelimit_operator.cluster.ownership import apply_unless_contested
from ratelimit_operator.plan.copies import COPY_LABEL, CopyState, ProfileCopy

_RETRY_S: Final = 5.0

Copies = Mapping[str, ProfileCopy]
"""ConfigMaps by profile."""


class _Written(msgspec.Struct):
    metadata: ObjectMeta


class CopyKeeper:
    """Writes ConfigMaps.

    Args:
        api: The API server.
        controller: Name of the release; its own and nobody else's are looked at.
        namespaces: Where there may be any.
        wanted: What has to be there, None: nothing is to be written now.
        on_change: Called when what `states` says has changed.
        interval_s: Between two looks without a change.

    Attributes:
        states: What became of each, by profile.
    """

    def __init__(
        self,
        api: ApiServer,
        controller: str,
        namespaces: frozenset[str],
        wanted: Callable[[], Copies | None],
        on_change: Callable[[], None],
        *,
        interval_s: float,
    ) -> None:
        self._api = api
        self._controller = controller
        self._namespaces = sorted(namespaces)
        self._wanted = wanted
        self._on_change = on_change
        self._interval_s = interval_s
        self._wake = asyncio.Event()
        self._log = structlog.get_logger("tidegate.copies")
        # Where they stood after our own last write: anything else is an edit of somebody else's.
        self._known: dict[str, tuple[str, str]] = {}
        self.states: Mapping[str, CopyState] = {}

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    async def run(self) -> None:
        """Keep them until cancelled; nothing is asked where no namespace may have any."""
        wait_s = self._interval_s
        while self._namespaces:
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            wanted = self._wanted()
            if wanted is None:
                self._known = {}
                continue
            states: dict[str, CopyState] = {}
            for namespace in self._namespaces:
                here = {key: each for key, each in wanted.items() if key.partition("/")[0] == namespace}
                states |= await self._keep(namespace, here)
            failed = any(each.error for each in states.values())
            wait_s = min(_RETRY_S, self._interval_s) if failed else self._interval_s
            if states != self.states:
                self.states = states
                self._on_change()

    async def _keep(self, namespace: str, wanted: Copies) -> dict[str, CopyState]:
        """Make one namespace's right."""
        selector = {"labelSelector": f"{COPY_LABEL}={self._controller}"}
        try:
            listed = await self._api.list_metadata(CONFIG_MAPS, namespace, selector)
        except ApiFailure as failure:
            self._log.warning("ConfigMaps of profiles not looked at", namespace=namespace, reason=str(failure))
            return {key: self._failed(each, failure) for key, each in wanted.items()}
        there = {each.name: each for each in listed or ()}
        states = {key: await self._write(each, there.get(each.name)) for key, each in wanted.items()}
        for name in there.keys() - {each.name for each in wanted.values()}:
            await self._remove(namespace, name)
        return states

    async def _write(self, copy: ProfileCopy, there: ObjectMeta | None) -> CopyState:
        if there is not None and self._known.get(copy.key) == (copy.version, there.resource_version):
            return CopyState(copy.name, copy.version)
        url = CONFIG_MAPS.url(*copy.key.split("/"))
        try:
            body = await apply_unless_contested(self._api, url, copy.manifest, f"{MANAGER}/{self._controller}")
        except ApiFailure as failure:
            self._log.warning("ConfigMap of a profile not written", name=copy.key, reason=str(failure))
            return self._failed(copy, failure)
        written = msgspec.json.decode(body, type=_Written).metadata
        if there is None or written.resource_version != there.resource_version:
            self._log.info("ConfigMap of a profile written", name=copy.key, version=copy.version)
        self._known[copy.key] = (copy.version, written.resource_version)
        return CopyState(copy.name, copy.version)

    async def _remove(self, namespace: str, name: str) -> None:
        try:
            await self._api.delete(CONFIG_MAPS.url(namespace, name))
        except ApiFailure as failure:
            self._log.warning("ConfigMap of a profile not removed", name=f"{namespace}/{name}", reason=str(failure))
            return
        self._known.pop(f"{namespace}/{name}", None)
        self._log.info("ConfigMap of a profile removed", name=f"{namespace}/{name}")

    def _failed(self, copy: ProfileCopy, failure: ApiFailure) -> CopyState:
        before = self.states.get(copy.profile)
        version = before.version if before is not None else ""
        return CopyState(copy.name, version, str(failure))

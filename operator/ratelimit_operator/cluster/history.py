"""Keeps the last sets that every replica ran in ConfigMaps, and reads one of them again.

A set lies in ConfigMaps with its version in their names; they are never changed, only made and removed.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from ratelimit_operator.cluster.api_server import CONFIG_MAPS, ApiFailure, ApiServer
from ratelimit_operator.plan.distribution import Distribution
from ratelimit_operator.plan.history import (
    HISTORY_LABEL,
    KEPT_LABEL,
    OWNER_LABEL,
    KeptSet,
    kept_sets,
    outdated,
    part_name,
)
from ratelimit_operator.xds.bootstrap import bootstrap_parts, distribution_in, part_key
from ratelimit_service.wire.xds.snapshot_part import SnapshotTooLarge

_RETRY_S: Final = 5.0


class _ConfigMap(msgspec.Struct, rename="camel"):
    binary_data: dict[str, str] = {}


class History:
    """The kept sets of one release.

    Args:
        api: The API server.
        namespace: The release's.
        controller: Its controller's name.
        most: How many sets stay; 0: none is kept.
        delay_s: How long a change waits for others.
        current: What should be kept, None: nothing, because not every replica runs it, or another operator writes.
        in_use: Version of the set that is given out again, empty: none; it is not removed.
    """

    def __init__(
        self,
        api: ApiServer,
        namespace: str,
        controller: str,
        most: int,
        delay_s: float,
        *,
        current: Callable[[], Distribution | None],
        in_use: Callable[[], str],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._controller = controller
        self._most = most
        self._delay_s = delay_s
        self._current = current
        self._in_use = in_use
        self._newest = ""
        self._wake = asyncio.Event()
        self._log = structlog.get_logger("tidegate.history")

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    async def sets(self) -> list[KeptSet]:
        """The kept sets, oldest first.

        Raises:
            ApiFailure: They cannot be listed.
        """
        query = {"labelSelector": f"{OWNER_LABEL}={self._controller}"}
        listed = await self._api.list_metadata(CONFIG_MAPS, self._namespace, query)
        return kept_sets((each.name, each.labels) for each in listed or ())

    async def read(self, version: str) -> Distribution | None:
        """A kept set; None: there is none of that version, or not all of it.

        Raises:
            ApiFailure: The API server does not let it be read.
        """
        names = next((each.names for each in await self.sets() if each.version == version), ())
        contents = []
        for name in names:
            body = await self._api.get(CONFIG_MAPS.url(self._namespace, name))
            data = msgspec.json.decode(body, type=_ConfigMap).binary_data
            contents += [base64.b64decode(each) for each in data.values()]
        return distribution_in(contents)[0]

    async def run(self) -> None:
        """Keep what is current until cancelled."""
        while self._most:
            await self._wake.wait()
            await asyncio.sleep(self._delay_s)
            self._wake.clear()
            current = self._current()
            if current is None or current.version == self._newest:
                continue
            try:
                await self._keep(current)
            except (ApiFailure, SnapshotTooLarge) as error:
                self._log.warning("set not kept in the history", reason=str(error))
                if isinstance(error, ApiFailure):
                    await asyncio.sleep(_RETRY_S)
                    self._wake.set()

    async def _keep(self, current: Distribution) -> None:
        kept = await self.sets()
        if current.version not in {each.version for each in kept}:
            kept_at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            parts = await asyncio.to_thread(bootstrap_parts, current, time.time_ns() // 1_000)
            for part, content in enumerate(parts):
                await self._create(current.version, kept_at, part, content)
            kept.append(KeptSet(kept_at, current.version))
            self._log.info("set kept in the history", version=current.version)
        self._newest = current.version
        for each in outdated(kept, self._most, self._in_use()):
            for name in each.names:
                await self._api.delete(CONFIG_MAPS.url(self._namespace, name))

    async def _create(self, version: str, kept_at: str, part: int, content: bytes) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": part_name(version, part),
                "namespace": self._namespace,
                "labels": {OWNER_LABEL: self._controller, HISTORY_LABEL: version, KEPT_LABEL: kept_at},
            },
            "immutable": True,
            "binaryData": {part_key(part): base64.b64encode(content).decode()},
        }
        try:
            await self._api.create(CONFIG_MAPS.url(self._namespace), body)
        except ApiFailure as failure:
            if failure.code != 409:  # 409: an earlier try made it
                raise

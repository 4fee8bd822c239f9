"""The last good set in ConfigMaps: what replicas begin with while no operator answers, and this process's own memory.

The names are fixed, the ConfigMaps are the release's (`crds/rbac.yaml` makes them empty), and only contents are
written. A form that replicas refuse is not kept: its last accepted one is.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog

from ratelimit_operator.api.objects import MANAGER
from ratelimit_operator.cluster.api_server import CONFIG_MAPS, ApiFailure, ApiServer
from ratelimit_operator.plan.distribution import Distribution
from ratelimit_operator.plan.live import Live, live_of
from ratelimit_operator.xds.bootstrap import BOOTSTRAP_PARTS, bootstrap_parts, distribution_in, part_key
from ratelimit_service.wire.xds.snapshot_part import SnapshotTooLarge

_RETRY_S: Final = 5.0


class _ConfigMap(msgspec.Struct, rename="camel"):
    binary_data: dict[str, str] = {}


class Bootstrap:
    """Reads the set once and keeps it up to date.

    Args:
        api: The API server.
        namespace: The release's.
        delay_s: How long a change waits for others.
        current: What should be kept, None: nothing, because this process does not hold the lease.
    """

    def __init__(
        self, api: ApiServer, namespace: str, delay_s: float, current: Callable[[], Distribution | None]
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._delay_s = delay_s
        self._current = current
        self._wake = asyncio.Event()
        self._log = structlog.get_logger("tidegate.bootstrap")
        self.saved: Distribution | None = None

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    async def load(self) -> Live:
        """The forms that were live when the set was last kept; none where there is no whole set.

        Raises:
            ApiFailure: The API server does not let it be read.
        """
        contents = []
        for part in range(BOOTSTRAP_PARTS):
            try:
                body = await self._api.get(CONFIG_MAPS.url(self._namespace, f"tidegate-bootstrap-{part}"))
            except ApiFailure as failure:
                if failure.code == 404:
                    continue
                raise
            data = msgspec.json.decode(body, type=_ConfigMap).binary_data
            contents += [base64.b64decode(each) for each in data.values()]
        self.saved, problems = distribution_in(contents)
        for problem in problems:
            self._log.warning("bootstrap set not read", reason=problem)
        return Live() if self.saved is None else live_of(self.saved)

    async def run(self) -> None:
        """Keep what is current until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._delay_s)
            self._wake.clear()
            current = self._current()
            if current is None or (self.saved is not None and self.saved.version == current.version):
                continue
            try:
                await self._save(current)
            except (ApiFailure, SnapshotTooLarge) as error:
                self._log.warning("bootstrap set not kept", reason=str(error))
                if isinstance(error, ApiFailure):
                    await asyncio.sleep(_RETRY_S)
                    self._wake.set()

    async def _save(self, current: Distribution) -> None:
        parts = await asyncio.to_thread(bootstrap_parts, current, time.time_ns() // 1_000)
        for part in range(BOOTSTRAP_PARTS):
            data: dict[str, str] = {}
            if part < len(parts):
                data = {part_key(part): base64.b64encode(parts[part]).decode()}
            name = f"tidegate-bootstrap-{part}"
            body: dict[str, Any] = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": self._namespace},
                "binaryData": data,
            }
            await self._api.apply(CONFIG_MAPS.url(self._namespace, name), body, MANAGER)
        self.saved = current
        self._log.info("bootstrap set kept", version=current.version, parts=len(parts))

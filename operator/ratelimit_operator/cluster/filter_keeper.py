"""Keeps the EnvoyFilters of a release as they have to be: applies what differs, removes what nobody wants any more.

What is there is found by a label, at the start and at each complete look, so nothing needs a finalizer: what an
operator left behind, or what is switched off, is swept by the next one. Only the holder of the Lease writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from ratelimit_operator.api.objects import MANAGER
from ratelimit_operator.cluster.api_server import CONFIG_MAPS, ENVOY_FILTERS, ApiFailure, ApiServer
from ratelimit_operator.cluster.lease import living_holder
from ratelimit_operator.plan.index import key_of
from ratelimit_service.errors import TidegateError

CONTROLLER_LABEL: Final = "tidegate.dev/controller"
"""Whose an EnvoyFilter is."""

SETTINGS_CONFIG_MAP: Final = "tidegate-settings"
"""ConfigMap of the release's switches, in its namespace (DECISIONS 50)."""

EVERYWHERE: Final[Sequence[str]] = ("",)
"""The whole cluster, as places to look into."""

_QUIET_S: Final = 1.0
"""After which a running operator would have written again."""

Filters = Mapping[str, Mapping[str, object]]
"""Manifests by `<namespace>/<name>`."""


class CannotBeTold(TidegateError):
    """An operator runs that would write again; the message says which, and why it cannot be told."""


class FilterKeeper:
    """Writes EnvoyFilters.

    Args:
        api: The API server.
        controller: Name of the release; its own and nobody else's are looked at.
        wanted: What has to be there, None: nothing is to be written now.
        on_installed: Called when Istio's kind comes or goes.
        interval_s: Between two looks without a change.
        places: Namespaces that are looked into, the empty one: the whole cluster.

    Attributes:
        is_installed: Istio's EnvoyFilter is a kind of the API server.
        failure: Why the last look failed, empty: it did not.
    """

    def __init__(
        self,
        api: ApiServer,
        controller: str,
        wanted: Callable[[], Filters | None],
        on_installed: Callable[[], None],
        *,
        interval_s: float,
        places: Sequence[str] = EVERYWHERE,
    ) -> None:
        self._api = api
        self._places = places
        self._controller = controller
        self._wanted = wanted
        self._on_installed = on_installed
        self._interval_s = interval_s
        self._wake = asyncio.Event()
        self._log = structlog.get_logger("tidegate.filters")
        self.is_installed = False
        self.failure = ""

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    async def run(self) -> None:
        """Keep them until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._look()
                self.failure = ""
            except ApiFailure as failure:
                if str(failure) != self.failure:
                    self._log.warning("EnvoyFilters are not as they have to be", reason=str(failure))
                self.failure = str(failure)

    async def _look(self) -> None:
        there = await written(self._api, self._controller, self._places)
        if (there is not None) != self.is_installed:
            self.is_installed = there is not None
            self._on_installed()
        wanted = self._wanted()
        if there is None or wanted is None:
            return
        for key, manifest in wanted.items():
            if not _is_as_wanted(there.get(key), manifest):
                await self._api.apply(_url(key), manifest, f"{MANAGER}/{self._controller}")
                self._log.info("EnvoyFilter applied", name=key)
        for key in there.keys() - wanted.keys():
            await self._api.delete(_url(key))
            self._log.info("EnvoyFilter removed", name=key)


async def written(
    api: ApiServer, controller: str, places: Sequence[str] = EVERYWHERE
) -> dict[str, dict[str, Any]] | None:
    """The EnvoyFilters of a release by `<namespace>/<name>`, None: Istio's kind is not installed.

    Raises:
        ApiFailure: They cannot be listed.
    """
    found: dict[str, dict[str, Any]] = {}
    for place in places:
        listed = await api.list_objects(ENVOY_FILTERS, place, {"labelSelector": f"{CONTROLLER_LABEL}={controller}"})
        if listed is None:
            return None
        found |= {key_of(each["metadata"]): each for each in listed}
    return found


async def detach(
    api: ApiServer,
    controller: str,
    namespace: str,
    *,
    places: Sequence[str] = EVERYWHERE,
    patience_s: float = 30.0,
) -> list[str]:
    """Take every EnvoyFilter of a release away and see that none comes back; names of those that were there.

    A running operator is told by the settings in the release's namespace, and sweeps by itself.
    `places`: namespaces that are looked into, the empty one: the whole cluster.

    Raises:
        ApiFailure: The API server refuses.
        CannotBeTold: An operator holds the Lease, and the settings cannot be written.
        TimeoutError: They come back all the same.
    """
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SETTINGS_CONFIG_MAP, "namespace": namespace},
        "data": {"attachment": "Off"},
    }
    try:
        await api.apply(CONFIG_MAPS.url(namespace, SETTINGS_CONFIG_MAP), settings, f"{MANAGER}/{controller}/detach")
    except ApiFailure as failure:
        # No matter where nobody writes; an operator would, at its next look, long after this has ended.
        holder = await living_holder(api, namespace)
        if holder:
            message = (
                f"operator {holder} runs and cannot be told to write no more: {failure}; create the ConfigMap "
                f"{namespace}/{SETTINGS_CONFIG_MAP}, empty, or end the operator first"
            )
            raise CannotBeTold(message) from failure
    removed: set[str] = set()
    async with asyncio.timeout(patience_s):
        while there := await written(api, controller, places):
            removed |= there.keys()
            for key in there:
                await api.delete(_url(key))
            await asyncio.sleep(_QUIET_S)
    return sorted(removed)


def _url(key: str) -> str:
    namespace, _, name = key.partition("/")
    return ENVOY_FILTERS.url(namespace, name)


def _is_as_wanted(there: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> bool:
    if there is None or there["spec"] != manifest["spec"]:
        return False
    metadata, wanted = there["metadata"], manifest["metadata"]
    labels = metadata.get("labels") or {}
    uids = {each["uid"] for each in metadata.get("ownerReferences") or ()}
    return wanted["labels"].items() <= labels.items() and uids >= {
        each["uid"] for each in wanted.get("ownerReferences", ())
    }

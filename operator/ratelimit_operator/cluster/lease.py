"""The Lease that elects the one operator that serves xDS and writes status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from ratelimit_operator.cluster.api_server import LEASES, ApiFailure, ApiServer
from ratelimit_operator.plan.election import RETRY_S, Election, Record, Step

LEASE_NAME: Final = "tidegate-operator"
"""Name of the Lease in the release's namespace."""

_LOOK_S: Final = 0.5
"""Between two looks at somebody else's Lease."""


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int = 15
    renew_time: str | None = None
    lease_transitions: int = 0


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str


class _Lease(msgspec.Struct):
    metadata: _Meta
    spec: _Spec


class LeaseKeeper:
    """Keeps looking at the Lease and tells when it is won or lost.

    Args:
        api: The API server.
        namespace: The release's.
        election: This candidate.
        on_change: Called with True when it is won, with False when it is lost.
    """

    def __init__(
        self,
        api: ApiServer,
        namespace: str,
        election: Election,
        on_change: Callable[[bool], None],
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._election = election
        self._on_change = on_change
        self._retry_s = retry_s
        self._held = False
        self._log = structlog.get_logger("tidegate.lease")

    @property
    def held(self) -> bool:
        """Whether this process is the holder."""
        return self._held

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                # A request that hangs must not outlive the right to act on it.
                await asyncio.wait_for(self._look(), self._election.renew_s / 2)
            except (ApiFailure, TimeoutError) as error:
                self._log.warning("lease not renewed", reason=str(error) or "no answer in time")
            self._tell()
            await asyncio.sleep(self._retry_s)

    async def release(self) -> None:
        """Let the lease go, so that another operator takes over at once."""
        if not self._held:
            return
        self._election.lost()
        self._tell()
        record = await self._read()
        if record is not None and record.holder == self._election.identity:
            await self._write(record, holder="")

    async def _look(self) -> None:
        sent_at_s = time.monotonic()
        record = await self._read()
        step = self._election.step(record, sent_at_s)
        if step is Step.WAIT:
            return
        try:
            if step is Step.CREATE:
                await self._api.create(LEASES.url(self._namespace), self._body(None, self._election.identity))
            else:
                assert record is not None
                await self._write(record, self._election.identity)
        except ApiFailure as failure:
            if failure.code != 409:
                raise
            self._election.lost()  # another was first
            return
        self._election.renewed(sent_at_s)

    async def _read(self) -> Record | None:
        try:
            body = await self._api.get(LEASES.url(self._namespace, LEASE_NAME))
        except ApiFailure as failure:
            if failure.code != 404:
                raise
            return None
        lease = msgspec.json.decode(body, type=_Lease)
        spec = lease.spec
        return Record(
            spec.holder_identity or "",
            spec.renew_time or "",
            spec.lease_transitions,
            lease.metadata.resource_version,
            float(spec.lease_duration_seconds),
        )

    async def _write(self, record: Record, holder: str) -> None:
        await self._api.replace(LEASES.url(self._namespace, LEASE_NAME), self._body(record, holder))

    def _body(self, record: Record | None, holder: str) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": LEASE_NAME, "namespace": self._namespace}
        transitions = 0
        if record is not None:
            metadata["resourceVersion"] = record.resource_version
            transitions = record.transitions + (holder not in ("", record.holder))
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": int(self._election.lease_s),
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }

    def _tell(self) -> None:
        held = self._election.holds(time.monotonic())
        if held != self._held:
            self._held = held
            self._log.info("lease won" if held else "lease lost", identity=self._election.identity)
            self._on_change(held)


async def living_holder(api: ApiServer, namespace: str) -> str:
    """Identity of an operator that holds the Lease of a release and renews it, empty: none does.

    Waits for a renewal, at the longest for as long as the Lease lasts.

    Raises:
        ApiFailure: The Lease cannot be read.
    """
    first: _Spec | None = None
    while True:
        try:
            body = await api.get(LEASES.url(namespace, LEASE_NAME))
        except ApiFailure as failure:
            if failure.code == 404:
                return ""
            raise
        spec = msgspec.json.decode(body, type=_Lease).spec
        if first is None:
            first, until_s = spec, time.monotonic() + spec.lease_duration_seconds
        if not spec.holder_identity:
            return ""
        if (spec.holder_identity, spec.renew_time) != (first.holder_identity, first.renew_time):
            return spec.holder_identity
        if time.monotonic() > until_s:
            return ""
        await asyncio.sleep(_LOOK_S)

"""`tidegate validate --against-cluster`: what the API server would say to files, without keeping anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ratelimit_operator.cluster.access import Access, NoAccess
from ratelimit_operator.cluster.api_server import POLICIES, PROFILES, ApiFailure, ApiServer
from ratelimit_operator.commands.files import read_files
from ratelimit_service.policy.decode import Manifest
from ratelimit_service.policy.encode import encode
from ratelimit_service.policy.model import RateLimitPolicy

_MANAGER: Final = "tidegate-validate"


def refusals(paths: Sequence[str], kubeconfig: str) -> list[str]:
    """A line for each object that the API server would refuse, by schema, rights or admission; empty: none.

    Only it knows what is there already (a domain cannot change), who asks, and which admission policies hold.
    """
    manifests = read_files(map(Path, paths))
    try:
        return asyncio.run(_rehearse(manifests, Access(kubeconfig)))
    except NoAccess as error:
        return [str(error)]


async def _rehearse(manifests: Sequence[Manifest], access: Access) -> list[str]:
    api = ApiServer(access)
    try:
        told = [await _refusal(api, each) for each in manifests]
    finally:
        api.close()
    return [line for line in told if line]


async def _refusal(api: ApiServer, manifest: Manifest) -> str:
    collection = POLICIES if isinstance(manifest, RateLimitPolicy) else PROFILES
    metadata = manifest.metadata
    try:
        url = collection.url(metadata.namespace, metadata.name)
        await api.apply(url, encode(manifest), _MANAGER, rehearsal=True)
    except ApiFailure as failure:
        return f"{metadata.namespace}/{metadata.name}: {failure}"
    return ""

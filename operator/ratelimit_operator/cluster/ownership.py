"""Whose a field is: what a user has set in what we write is ours, what another release has set is not."""

from __future__ import annotations

from ratelimit_operator.api.objects import MANAGER
from ratelimit_operator.cluster.api_server import ApiFailure, ApiServer


async def apply_unless_contested(
    api: ApiServer, url: str, body: object, manager: str, *, is_contested: bool = True
) -> bytes:
    """Server-side apply; a field that somebody else has set is ours, unless another release of ours has.

    Args:
        api: The API server.
        url: Of the object, or of its status.
        body: What it is to be.
        manager: Field manager.
        is_contested: Whether another release that has set a field is still there. One that is gone leaves its name on
            the object, and would stand in the way for ever.

    Raises:
        ApiFailure: 409: another release writes it, too.
    """
    try:
        return await api.apply(url, body, manager, force=False)
    except ApiFailure as failure:
        if failure.code != 409 or (is_contested and f'"{MANAGER}/' in str(failure)):
            raise
    return await api.apply(url, body, manager, force=True)

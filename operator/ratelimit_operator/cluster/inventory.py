"""Complete lists of everything that a plan is made from, compared with what events have told.

Nothing is partial: until each kind was listed once, there is no world; a list that fails removes nothing
(DECISIONS 47). The first list reads whole objects, the later ones metadata, and then what differs; each page is taken
in before the next is asked for, because thousands of objects as plain values take more memory than all that is kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ratelimit_operator.cluster.api_server import ApiFailure, ApiServer, Collection, ObjectMeta
from ratelimit_operator.plan.index import Index, Listed, key_of

_SINGLY: Final = 50
"""Up to so many objects that differ are read one by one, more by a list."""


class Kept(msgspec.Struct):
    """One kind that is kept up to date.

    Attributes:
        collection: Where it is.
        index: What is known of it.
        places: Namespaces that are listed, the empty one: the whole cluster.
        query: Selectors of its lists.
        listed_at_s: When the last complete list of it ended (monotonic), None: never.
        is_absent: The API server does not know the kind.
        failure: Why the last list failed, empty: it did not.
    """

    collection: Collection
    index: Index[Any]
    places: Sequence[str] = ("",)
    query: Mapping[str, str] = {}
    listed_at_s: float | None = None
    is_absent: bool = False
    failure: str = ""


class Inventory:
    """All kinds of a release.

    Args:
        api: The API server.
        kinds: By their names in the plural.
    """

    def __init__(self, api: ApiServer, kinds: Mapping[str, Kept]) -> None:
        self._api = api
        self.kinds = kinds

    @property
    def is_complete(self) -> bool:
        """Whether every kind was listed at least once."""
        return all(each.listed_at_s is not None for each in self.kinds.values())

    @property
    def failure(self) -> str:
        """Why the last look at any kind failed, empty: none did."""
        return "; ".join(f"{name}: {each.failure}" for name, each in self.kinds.items() if each.failure)

    async def refresh(self) -> bool:
        """List every kind; True: what is known has changed."""
        changed = False
        for each in self.kinds.values():
            try:
                changed |= await self._refresh(each)
                each.failure = ""
            except ApiFailure as failure:
                each.failure = str(failure)
        return changed

    async def _refresh(self, kind: Kept) -> bool:
        first, was_absent = kind.listed_at_s is None, kind.is_absent
        began_s = time.monotonic()
        changed = await (self._read_all(kind, began_s) if first else self._compare(kind, began_s))
        kind.listed_at_s = time.monotonic()
        # A kind that was installed since may have told of its objects by events already; that it is there is news.
        return changed or first or kind.is_absent is not was_absent

    async def _read_all(self, kind: Kept, began_s: float) -> bool:
        changed = False
        listed: list[Listed] = []
        for namespace in kind.places:
            async for page in self._api.object_pages(kind.collection, namespace, kind.query):
                kind.is_absent = page is None
                for body in page or ():
                    changed |= kind.index.put(body, began_s)
                    listed.append(_listed_body(body))
        return kind.index.reconcile(listed, began_s)[1] or changed

    async def _compare(self, kind: Kept, began_s: float) -> bool:
        found: list[ObjectMeta] = []
        for namespace in kind.places:
            page = await self._api.list_metadata(kind.collection, namespace, kind.query)
            kind.is_absent = page is None
            found += page or ()
        stale, changed = kind.index.reconcile([_listed_meta(each) for each in found], began_s)
        if len(stale) > _SINGLY:
            return await self._read_all(kind, began_s) or changed
        for key in stale:
            changed |= await self._read_one(kind, key)
        return changed

    async def _read_one(self, kind: Kept, key: str) -> bool:
        namespace, _, name = key.rpartition("/")
        try:
            body = await self._api.get(kind.collection.url(namespace, name))
        except ApiFailure as failure:
            if failure.code == 404:
                return False  # gone since: its event, or the next list, says so
            raise
        return kind.index.put(msgspec.json.decode(body), time.monotonic())


def _listed_body(body: dict[str, Any]) -> Listed:
    metadata = body["metadata"]
    return Listed(key_of(metadata), metadata["uid"], metadata["resourceVersion"])


def _listed_meta(meta: ObjectMeta) -> Listed:
    name = f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
    return Listed(name, meta.uid, meta.resource_version)

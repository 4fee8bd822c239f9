"""Requests to the API server: few, counted, with a deadline, on threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
import urllib3

from ratelimit_operator.api.objects import MANAGER
from ratelimit_operator.cluster.access import Access
from ratelimit_service.errors import TidegateError

PAGE: Final = 500
"""Objects per page of a list."""

_THREADS: Final = 8
_TIMEOUT_S: Final = 30.0
_APPLY: Final = "application/apply-patch+yaml"
_PARTIAL_LIST: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class ApiFailure(TidegateError):
    """The API server refuses, or does not answer.

    Attributes:
        code: HTTP status, 0: no answer.
        retry_after_s: What the server asks to wait, 0: nothing.
    """

    def __init__(self, code: int, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(f"{code}: {message}" if code else message)
        self.code = code
        self.retry_after_s = retry_after_s


class _Status(msgspec.Struct):
    message: str = ""


class _ListMeta(msgspec.Struct, rename="camel"):
    continue_: str = msgspec.field(name="continue", default="")
    resource_version: str = ""


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel"):
    """What a list of metadata tells of one object."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: Mapping[str, str] = {}


class _Partial(msgspec.Struct):
    metadata: ObjectMeta


class _PartialPage(msgspec.Struct):
    metadata: _ListMeta
    items: list[_Partial] | None  # null when there is none


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[dict[str, Any]] | None


class Collection(msgspec.Struct, frozen=True):
    """One kind of object as URLs name it.

    Attributes:
        root: `/api/v1` or `/apis/<group>/<version>`.
        plural: Such as `configmaps`.
    """

    root: str
    plural: str

    def url(self, namespace: str = "", name: str = "") -> str:
        """URL of an object, or of all of them; `namespace` empty: of the whole cluster."""
        within = f"/namespaces/{namespace}" if namespace else ""
        return f"{self.root}{within}/{self.plural}" + (f"/{name}" if name else "")


POLICIES: Final = Collection("/apis/tidegate.dev/v1alpha1", "ratelimitpolicies")
PROFILES: Final = Collection("/apis/tidegate.dev/v1alpha1", "cacheprofiles")
NAMESPACES: Final = Collection("/api/v1", "namespaces")
CONFIG_MAPS: Final = Collection("/api/v1", "configmaps")
ENDPOINT_SLICES: Final = Collection("/apis/discovery.k8s.io/v1", "endpointslices")
LEASES: Final = Collection("/apis/coordination.k8s.io/v1", "leases")
GATEWAYS: Final = Collection("/apis/gateway.networking.k8s.io/v1", "gateways")
GATEWAY_CLASSES: Final = Collection("/apis/gateway.networking.k8s.io/v1", "gatewayclasses")
HTTP_ROUTES: Final = Collection("/apis/gateway.networking.k8s.io/v1", "httproutes")
GRPC_ROUTES: Final = Collection("/apis/gateway.networking.k8s.io/v1", "grpcroutes")
ENVOY_FILTERS: Final = Collection("/apis/networking.istio.io/v1alpha3", "envoyfilters")
EVENTS: Final = Collection("/api/v1", "events")


class ApiServer:
    """The API server, for one event loop.

    Attributes:
        calls: Requests by (verb, code class), such as `("GET", "2xx")`; code 0 is `none`.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._pool = access.pool()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="api")
        self.calls: dict[tuple[str, str], int] = {}

    def close(self) -> None:
        """Give the threads up; requests under way end first."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._pool.clear()

    async def get(self, url: str, query: Mapping[str, str] | None = None, accept: str = "application/json") -> bytes:
        """An object or a page.

        Raises:
            ApiFailure: 404 included.
        """
        return await self._request("GET", url, query or {}, None, "application/json", accept)

    async def create(self, url: str, body: object) -> bytes:
        """A new object in a collection.

        Raises:
            ApiFailure: 409: it is there already.
        """
        return await self._request("POST", url, {}, msgspec.json.encode(body), "application/json")

    async def replace(self, url: str, body: object) -> bytes:
        """An object whole; with a resourceVersion in it only if nobody was faster.

        Raises:
            ApiFailure: 409: somebody was.
        """
        return await self._request("PUT", url, {}, msgspec.json.encode(body), "application/json")

    async def apply(
        self, url: str, body: object, manager: str, *, force: bool = True, rehearsal: bool = False
    ) -> bytes:
        """Server-side apply; in a `rehearsal` everything is judged and nothing is kept.

        Raises:
            ApiFailure: 409: another manager owns a field, and not `force`.
        """
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        if rehearsal:
            query["dryRun"] = "All"
        return await self._request("PATCH", url, query, msgspec.json.encode(body), _APPLY)

    async def delete(self, url: str) -> None:
        """Remove an object; one that is not there is removed already.

        Raises:
            ApiFailure: Anything but 404.
        """
        try:
            await self._request("DELETE", url, {}, None, "application/json")
        except ApiFailure as failure:
            if failure.code != 404:
                raise

    async def list_objects(
        self, collection: Collection, namespace: str = "", query: Mapping[str, str] | None = None
    ) -> list[dict[str, Any]] | None:
        """Every object, in pages; None: there is no such kind (404). `query`: selectors.

        Raises:
            ApiFailure: Anything else, the end of the pages' validity (410) included: then nothing is known.
        """
        found: list[dict[str, Any]] = []
        async for page in self.object_pages(collection, namespace, query):
            if page is None:
                return None
            found += page
        return found

    async def object_pages(
        self, collection: Collection, namespace: str = "", query: Mapping[str, str] | None = None
    ) -> AsyncIterator[list[dict[str, Any]] | None]:
        """Every object page by page, so that one page's worth is in memory; one None: there is no such kind (404).

        Raises:
            ApiFailure: As `list_objects`, after the pages before.
        """
        async for body in self._pages(collection, namespace, query or {}, "application/json"):
            yield None if body is None else msgspec.json.decode(body, type=_Page).items or []

    async def list_metadata(
        self, collection: Collection, namespace: str = "", query: Mapping[str, str] | None = None
    ) -> list[ObjectMeta] | None:
        """Every object's metadata, in pages; None: there is no such kind (404). `query`: selectors.

        Raises:
            ApiFailure: As `list_objects`.
        """
        found: list[ObjectMeta] = []
        async for body in self._pages(collection, namespace, query or {}, _PARTIAL_LIST):
            if body is None:
                return None
            found += [each.metadata for each in msgspec.json.decode(body, type=_PartialPage).items or ()]
        return found

    async def _pages(
        self, collection: Collection, namespace: str, query: Mapping[str, str], accept: str
    ) -> AsyncIterator[bytes | None]:
        asked = {"limit": str(PAGE), **query}
        while True:
            try:
                body = await self.get(collection.url(namespace), asked, accept)
            except ApiFailure as failure:
                if failure.code == 404:
                    yield None
                    return
                raise
            yield body
            onward = msgspec.json.decode(body, type=_Head).metadata.continue_
            if not onward:
                return
            asked = asked | {"continue": onward}

    async def _request(
        self,
        method: str,
        url: str,
        query: Mapping[str, str],
        body: bytes | None,
        content_type: str,
        accept: str = "application/json",
    ) -> bytes:
        loop = asyncio.get_running_loop()
        code, data, retry_after_s = await loop.run_in_executor(
            self._threads, self._send, method, url, query, body, content_type, accept
        )
        kind = f"{code // 100}xx" if code else "none"
        self.calls[method, kind] = self.calls.get((method, kind), 0) + 1
        if code >= 300 or code == 0:
            raise ApiFailure(code, f"{method} {url}: {_message(data)}", retry_after_s)
        return data

    def _send(
        self, method: str, url: str, query: Mapping[str, str], body: bytes | None, content_type: str, accept: str
    ) -> tuple[int, bytes, float]:
        """On a thread: (code, body, seconds to wait); code 0: no answer, and why."""
        credentials = self._access.credentials()
        headers = {"accept": accept, "content-type": content_type, "user-agent": MANAGER}
        if credentials.token:
            headers["authorization"] = f"Bearer {credentials.token}"
        target = f"{credentials.server}{url}" + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._pool.request(
                method, target, body=body, headers=headers, retries=False, timeout=_TIMEOUT_S, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            return 0, str(error).encode(), 0.0
        wait = response.headers.get("retry-after", "")
        return response.status, response.data, float(wait) if wait.isdigit() else 0.0


class _Head(msgspec.Struct):
    metadata: _ListMeta


def _message(data: bytes) -> str:
    """The API server's own words."""
    try:
        return msgspec.json.decode(data, type=_Status).message
    except msgspec.DecodeError:
        return data[:300].decode(errors="replace")

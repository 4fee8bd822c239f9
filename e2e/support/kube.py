"""What kubectl does, for tests: apply, create, get, delete, with the API server's own answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import kubernetes
import msgspec

Object = dict[str, Any]
"""An object of the API server as plain values."""

_PLURALS = {
    "RateLimitPolicy": "ratelimitpolicies",
    "CacheProfile": "cacheprofiles",
    "Namespace": "namespaces",
    "ConfigMap": "configmaps",
    "EndpointSlice": "endpointslices",
    "CustomResourceDefinition": "customresourcedefinitions",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ServiceAccount": "serviceaccounts",
    "Lease": "leases",
    "Gateway": "gateways",
    "GatewayClass": "gatewayclasses",
    "HTTPRoute": "httproutes",
    "GRPCRoute": "grpcroutes",
    "EnvoyFilter": "envoyfilters",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


class Answer(msgspec.Struct, frozen=True):
    """Status code and body of one response."""

    code: int
    body: Any

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def causes(self) -> list[tuple[str, str]]:
        """(field, message) of everything that a 422 complains of."""
        details = self.body.get("details") or {}
        return [(each.get("field", ""), each.get("message", "")) for each in details.get("causes") or ()]

    def good(self) -> Any:
        """The body of a response that must be good."""
        assert self.code < 300, f"{self.code}: {self.body}"
        return self.body


class Kube:
    """A user's client."""

    def __init__(self, client: kubernetes.client.ApiClient) -> None:
        self._host = client.configuration.host
        self._pool = client.rest_client.pool_manager
        self._headers = {"authorization": client.configuration.api_key["authorization"]}

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> Answer:
        """One request; `body` goes as JSON, which is YAML too."""
        response = self._pool.request(
            method,
            f"{self._host}{path}",
            body=None if body is None else json.dumps(body, ensure_ascii=False).encode(),
            headers={**self._headers, "content-type": kind, "accept": accept},
            retries=False,
            timeout=30.0,
        )
        text = response.data.decode()
        return Answer(response.status, json.loads(text) if text.startswith("{") else text)

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def apply(self, manifest: Mapping[str, Any], manager: str = "tests", *, force: bool = True) -> Answer:
        """Server-side apply, as `kubectl apply --server-side`."""
        query = f"?fieldManager={manager}&force={str(force).lower()}&fieldValidation=Strict"
        return self.request("PATCH", path_of(manifest) + query, manifest, "application/apply-patch+yaml")

    def create(self, manifest: Mapping[str, Any]) -> Answer:
        """As `kubectl create`: unknown fields are errors."""
        collection = path_of(manifest).rpartition("/")[0]
        return self.request("POST", f"{collection}?fieldValidation=Strict", manifest)

    def replace(self, manifest: Mapping[str, Any]) -> Answer:
        return self.request("PUT", f"{path_of(manifest)}?fieldValidation=Strict", manifest)

    def merge(self, manifest: Mapping[str, Any], patch: object, subresource: str = "") -> Answer:
        """As `kubectl patch --type=merge`."""
        return self.request("PATCH", path_of(manifest) + subresource, patch, "application/merge-patch+json")

    def read(self, manifest: Mapping[str, Any]) -> Object:
        """The object as it is now."""
        found: Object = self.get(path_of(manifest)).good()
        return found

    def delete(self, manifest: Mapping[str, Any]) -> Answer:
        return self.request("DELETE", path_of(manifest))

    def namespace(self, name: str, **labels: str) -> None:
        """Make a namespace, with labels whose names are `tidegate.dev/<name>`."""
        marked = {f"tidegate.dev/{key}": value for key, value in labels.items()}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marked}}).good()


def path_of(manifest: Mapping[str, Any]) -> str:
    """URL of an object."""
    version = manifest["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    metadata = manifest["metadata"]
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{namespace}/{_PLURALS[manifest['kind']]}/{metadata['name']}"


def condition(body: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    """A condition of an object, empty where it is not there."""
    for each in (body.get("status") or {}).get("conditions") or ():
        if each["type"] == type_:
            found: Mapping[str, Any] = each
            return found
    return {}

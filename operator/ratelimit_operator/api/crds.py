"""The CustomResourceDefinitions: names, columns and schemas, as YAML that `crds/` keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import yaml

from ratelimit_operator.api.openapi import Schema, rules_by_part, schema_of
from ratelimit_operator.api.status import CacheProfileStatus, RateLimitPolicyStatus
from ratelimit_service.policy import profile_rules, rules
from ratelimit_service.policy.model import API_VERSION, RateLimitPolicySpec
from ratelimit_service.policy.profile_model import CacheProfileSpec

GROUP: Final = API_VERSION.partition("/")[0]
"""API group of our kinds."""

VERSION: Final = API_VERSION.partition("/")[2]
"""The one version that is served and stored."""

_KEPT: Final = "# Made by `make generate` from the policy model; do not edit.\n"


class Kind(msgspec.Struct, frozen=True):
    """One of our kinds as the API server names it.

    Attributes:
        kind: CamelCase.
        plural: In URLs.
        singular: In `kubectl get`.
        short_name: Unique among what users run beside it: Kuadrant has a `RateLimitPolicy` too.
        description: First line of `kubectl explain`.
        spec: Model of its spec.
        status: Model of its status.
        columns: Printer columns: (name, JSON path, type, priority).
        cel: Rules between fields.
        labels: Labels of the definition.
    """

    kind: str
    plural: str
    singular: str
    short_name: str
    description: str
    spec: type
    status: type
    columns: Sequence[tuple[str, str, str, int]]
    cel: tuple[rules.CelRule, ...]
    labels: Mapping[str, str]

    @property
    def crd_name(self) -> str:
        """Name of its definition."""
        return f"{self.plural}.{GROUP}"


def _condition(type_: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{type_}")].{field}'


_AGE: Final = ("Age", ".metadata.creationTimestamp", "date", 0)

RATE_LIMIT_POLICY: Final = Kind(
    kind="RateLimitPolicy",
    plural="ratelimitpolicies",
    singular="ratelimitpolicy",
    short_name="tgrlp",
    description="How many requests fit, for whom, and in what time: rules of one domain, or of Gateway API targets.",
    spec=RateLimitPolicySpec,
    status=RateLimitPolicyStatus,
    columns=(
        ("Domain", ".status.effective.domain", "string", 0),
        ("Mode", ".spec.mode", "string", 0),
        ("Accepted", _condition("Accepted"), "string", 0),
        ("Programmed", _condition("Programmed"), "string", 0),
        ("Replicas", ".status.distribution.summary", "string", 0),
        _AGE,
        ("Reason", _condition("Ready", "message"), "string", 1),
        ("Version", ".status.distribution.version", "string", 1),
    ),
    cel=rules.CEL_RULES,
    labels={"gateway.networking.k8s.io/policy": "Inherited"},
)
"""Kind of policies."""

CACHE_PROFILE: Final = Kind(
    kind="CacheProfile",
    plural="cacheprofiles",
    singular="cacheprofile",
    short_name="tgcp",
    description="Where hits are counted, and how the value cache behaves.",
    spec=CacheProfileSpec,
    status=CacheProfileStatus,
    columns=(
        ("Store", ".spec.store.type", "string", 0),
        ("Default", ".spec.default", "boolean", 0),
        ("Accepted", _condition("Accepted"), "string", 0),
        ("Ready", _condition("Ready"), "string", 0),
        ("UsedBy", ".status.usedBy", "integer", 0),
        _AGE,
        ("Reason", _condition("Ready", "message"), "string", 1),
    ),
    cel=profile_rules.CEL_RULES,
    labels={},
)
"""Kind of profiles."""

KINDS: Final = (RATE_LIMIT_POLICY, CACHE_PROFILE)
"""All kinds, in the order in which they are installed."""


def definition(kind: Kind) -> Schema:
    """The CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": kind.crd_name,
            "labels": {"app.kubernetes.io/part-of": "tidegate", **kind.labels},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short_name],
                "categories": ["tidegate"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path, "priority": priority}
                        for name, path, type_, priority in kind.columns
                    ],
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }


def _root(kind: Kind) -> Schema:
    """The whole object; `metadata` is the API server's own."""
    return {
        "type": "object",
        "description": kind.description,
        "properties": {
            "apiVersion": {"type": "string", "description": f"`{API_VERSION}`"},
            "kind": {"type": "string", "description": f"`{kind.kind}`"},
            "metadata": {"type": "object"},
            "spec": schema_of(kind.spec, rules_by_part(kind.cel)),
            "status": schema_of(kind.status, {}),
        },
        "required": ["spec"],
    }


class _Dumper(yaml.SafeDumper):
    """Writes every part out: an alias would be valid YAML that `kubectl diff` and people read badly."""

    def ignore_aliases(self, data: object) -> bool:
        """No part is an alias."""
        return True


def render_yaml(*objects: Schema) -> str:
    """Objects as one file of several documents."""
    text = yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return _KEPT + str(text)


def render_crd(kind: Kind) -> str:
    """The file that `crds/` keeps."""
    return render_yaml(definition(kind))

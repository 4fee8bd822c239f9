"""What is made of the chart's values and of our kinds: schema, README, copies of the CRDs.

A comment `# -- text` above a key of `values.yaml` is that key's description, in the schema and in the README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parent.parent
CHART: Final = ROOT / "helm" / "tidegate"
_OPEN_MAPPING: Final = {"type": "object"}
_DURATION: Final = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
_QUANTITY: Final = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?(Ki|Mi|Gi|k|M|G)?$"}
_PORTS: Final = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}}
_NAMES: Final = {"type": "array", "items": {"type": "string", "minLength": 1}}
_LEVEL: Final = {"enum": ["debug", "info", "warning", "error"]}
_FORMAT: Final = {"enum": ["json", "console"]}
_PULL: Final = {"enum": ["Always", "IfNotPresent", "Never"]}
_COUNT: Final = {"type": "integer", "minimum": 0}
_LABELS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
_SECRET_MOUNT: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["namespace", "name", "existingSecret"],
    "properties": {name: {"type": "string", "minLength": 1} for name in ("namespace", "name", "existingSecret")},
}
SHARPER: Final[Mapping[str, Mapping[str, Any]]] = {
    "commonLabels": _LABELS,
    "enforcement": {"enum": ["Enforce", "Shadow"]},
    "global.imagePullSecrets": _NAMES,
    "rbac.scope": {"enum": ["cluster", "namespaces"]},
    "rbac.namespaces": _NAMES,
    "profileConfigMaps.namespaces": _NAMES,
    "store.type": {"enum": ["Redis", "Memory"]},
    "store.url": {"type": "string", "pattern": "^$|^redis(s)?(\\+sentinel|\\+cluster)?://"},
    "store.maxKeys": {"type": "integer", "minimum": 1000},
    "store.maxBytes": _QUANTITY,
    "redis.image.pullPolicy": _PULL,
    "service.replicas": _COUNT,
    "service.workers": {"type": "integer", "minimum": 1, "maximum": 64},
    "service.slots": _COUNT,
    "service.tracesEndpoint": {"type": "string", "pattern": "^$|^https?://[^/:]+:[0-9]+$"},
    "service.deadline": _DURATION,
    "service.image.pullPolicy": _PULL,
    "service.logFormat": _FORMAT,
    "service.logLevel": _LEVEL,
    "service.secretMounts": {"type": "array", "items": _SECRET_MOUNT},
    "service.autoscaling.minReplicas": {"type": "integer", "minimum": 1},
    "service.autoscaling.maxReplicas": {"type": "integer", "minimum": 1, "maximum": 1000},
    "service.autoscaling.targetCPUUtilizationPercentage": {"type": "integer", "minimum": 1, "maximum": 100},
    "service.podDisruptionBudget.maxUnavailable": {"type": ["integer", "string"]},
    "service.preStopSeconds": {"type": "integer", "minimum": 0, "maximum": 300},
    "service.terminationGracePeriodSeconds": {"type": "integer", "minimum": 5, "maximum": 600},
    "operator.replicas": {"type": "integer", "minimum": 1},
    "operator.image.pullPolicy": _PULL,
    "operator.logFormat": _FORMAT,
    "operator.logLevel": _LEVEL,
    "operator.envoyService": {"type": "string", "pattern": "^$|^[^:/]+:[0-9]+$"},
    "operator.controllerName": {"type": "string", "pattern": "^$|^[A-Za-z0-9]([-A-Za-z0-9._]{0,61}[A-Za-z0-9])?$"},
    "operator.podDisruptionBudget.maxUnavailable": {"type": ["integer", "string"]},
    "tls.xds.mode": {"enum": ["Off", "Generated", "CertManager", "ExistingSecret"]},
    "tls.grpc.mode": {"enum": ["Off", "CertManager", "ExistingSecret"]},
    "tls.grpc.clientSans": _NAMES,
    "networkPolicy.dns.ports": _PORTS,
    "networkPolicy.redis.ports": _PORTS,
    "networkPolicy.redis.cidrs": _NAMES,
    "networkPolicy.apiServer.ports": _PORTS,
    "networkPolicy.apiServer.cidrs": _NAMES,
    "serviceMonitor.labels": _LABELS,
    "serviceMonitor.interval": _DURATION,
    "prometheusRule.labels": _LABELS,
    "prometheusRule.disabledGroups": _NAMES,
    "prometheusRule.runbookUrlPrefix": {"type": "string", "pattern": "^https?://"},
    "dashboards.labels": _LABELS,
    "dashboards.annotations": _LABELS,
}
"""Path of a value → what its example alone does not say."""

_MEMORY_IS_ONE_REPLICA: Final = {
    "if": {"properties": {"store": {"properties": {"type": {"const": "Memory"}}, "required": ["type"]}}},
    "then": {
        "properties": {
            "service": {
                "properties": {
                    "replicas": {"maximum": 1},
                    "workers": {"maximum": 1},
                    "autoscaling": {"properties": {"enabled": {"const": False}}},
                }
            }
        }
    },
}


def described(text: str) -> dict[str, str]:
    """Descriptions by dotted path."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    comment = ""
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("# -- "):
            comment = bare.removeprefix("# -- ")
        elif bare and not bare.startswith(("#", "- ")):
            indent = len(line) - len(line.lstrip())
            while path and path[-1][0] >= indent:
                path.pop()
            path.append((indent, bare.partition(":")[0]))
            if comment:
                found[".".join(name for _, name in path)] = comment
            comment = ""
    return found


def _schema_of(value: object, path: str, told: Mapping[str, str]) -> dict[str, Any]:
    described_here = {"description": told[path]} if path in told else {}
    if path in SHARPER:
        return {**described_here, **SHARPER[path]}
    if isinstance(value, bool):
        return {**described_here, "type": "boolean"}
    if isinstance(value, int):
        return {**described_here, "type": "integer"}
    if isinstance(value, str):
        return {**described_here, "type": "string"}
    if isinstance(value, list):
        return {**described_here, "type": "array"}
    assert isinstance(value, dict), path
    if path in told:
        # A described mapping is handed to Kubernetes as it is.
        return {**described_here, **_OPEN_MAPPING}
    below = {key: _schema_of(item, f"{path}.{key}".lstrip("."), told) for key, item in value.items()}
    return {"type": "object", "additionalProperties": False, "properties": below}


def render_values_schema() -> str:
    """`values.schema.json`: closed, each value with its description."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    schema = _schema_of(yaml.safe_load(text), "", described(text))
    return (
        json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **schema, **_MEMORY_IS_ONE_REPLICA}, indent=1)
        + "\n"
    )


def _leaves(value: object, path: str, told: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and path not in told:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}".lstrip("."), told)
    else:
        yield path, value


def render_chart_readme() -> str:
    """`README.md` of the chart: how to install, and every value."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    told = described(text)
    rows = [
        f"| `{path}` | `{json.dumps(value)}` | {told.get(path, '').replace('|', chr(92) + '|')} |"
        for path, value in _leaves(yaml.safe_load(text), "", told)
    ]
    return "\n".join([*_README, *rows]) + "\n"


_README: Final = (
    "# Helm chart of Tidegate",
    "",
    "```sh",
    "helm install tidegate helm/tidegate --namespace tidegate-system --create-namespace",
    "```",
    "",
    "That is a working trial: two operators, two replicas of the service, one Redis, certificates between them.",
    "`helm test tidegate -n tidegate-system` makes one real ShouldRateLimit call.",
    "For production: a Redis of yours (`store.url`), certificates of yours (`tls.xds.mode`, `tls.grpc.mode`),",
    "`networkPolicy.enabled`, `serviceMonitor.enabled`, `prometheusRule.enabled`, `dashboards.enabled`.",
    "",
    "## Custom resources",
    "",
    "The chart installs its CustomResourceDefinitions (`crds.enabled`) and keeps them at uninstall,",
    "and with them every policy.",
    "Where GitOps tools own them, set `crds.enabled: false` and install `helm/tidegate-crds`.",
    "",
    "## Upgrading",
    "",
    "The definitions are templates, so `helm upgrade` upgrades them with the rest.",
    "A `v1alpha1` may gain fields and rules; objects that were accepted stay accepted.",
    "",
    "## Values",
    "",
    "| value | default | meaning |",
    "|---|---|---|",
)


def copy_of(name: str) -> str:
    """A CRD, for the charts."""
    return (ROOT / "crds" / name).read_text(encoding="utf-8")


def render_rbac() -> str:
    """The rules of `crds/rbac.yaml`, with which every test of the operator runs, for the chart's roles."""
    text = (ROOT / "crds" / "rbac.yaml").read_text(encoding="utf-8")
    rules = {
        (each["kind"], each["metadata"]["name"]): each["rules"] for each in yaml.safe_load_all(text) if "rules" in each
    }
    roles = {
        "cluster": rules["ClusterRole", "tidegate-operator"],
        "own": rules["Role", "tidegate-operator"],
        "profiles": rules["ClusterRole", "tidegate-operator-profiles"],
    }
    return json.dumps(roles, indent=1) + "\n"

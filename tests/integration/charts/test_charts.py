"""What the charts render: golden files, the schemas of Kubernetes, and what must hold of any rendering."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import ValidationError

from support.helm import CHART, ROOT, Refused, find_helm, rendered

VALUE_SETS = sorted((CHART / "ci").glob("*-values.yaml"))
GOLDEN = Path(__file__).parent / "golden"
KUBERNETES = ("1.32", "1.34", "1.37")
"""Versions whose schemas judge; only 1.34 was run."""
THEIRS = ("monitoring.coreos.com", "cert-manager.io", "apiextensions.k8s.io", "tidegate.dev")
"""Groups that Kubernetes' own schemas do not know, or know too loosely to judge."""


@pytest.fixture(scope="module")
def helm() -> str:
    return find_helm()


def _arguments(values: Path | None) -> list[str]:
    # The definitions have a test of their own; without them a rendering is a tenth as long.
    return ["--set", "crds.enabled=false", *([] if values is None else ["--values", str(values)])]


def _text(objects: list[dict]) -> str:
    """YAML of what a reader would review, without what Helm makes anew each time and what stands elsewhere."""
    for each in objects:
        if each["kind"] == "Secret":
            each["data"] = dict.fromkeys(each["data"], "made anew")
        if each["kind"] == "ConfigMap" and "-dashboard-" in each["metadata"]["name"]:
            each["data"] = dict.fromkeys(each["data"], "a dashboard")
        if each["kind"] == "PrometheusRule":
            each["spec"]["groups"] = [group["name"] for group in each["spec"]["groups"]]
    return yaml.dump_all(objects, Dumper=yaml.CSafeDumper, sort_keys=True, width=200)


def _golden(helm: str, values: Path | None) -> str:
    """The default rendering as it is; of each set of values, what differs from it."""
    default = _text(rendered(helm, CHART, _arguments(None)))
    if values is None:
        return default
    other = _text(rendered(helm, CHART, _arguments(values)))
    lines = difflib.unified_diff(default.splitlines(), other.splitlines(), "default", values.stem, n=2, lineterm="")
    return "\n".join(re.sub(r"^@@ .* @@$", "@@", line) for line in lines) + "\n"


@pytest.mark.parametrize("values", [None, *VALUE_SETS], ids=lambda path: "default" if path is None else path.stem)
def test_a_rendering_is_what_was_reviewed(helm: str, values: Path | None) -> None:
    """Set TIDEGATE_GOLDEN=write to take what is rendered now, and read the difference before you commit it."""
    path = GOLDEN / ("default.yaml" if values is None else f"{values.stem.removesuffix('-values')}.diff")
    found = _golden(helm, values)
    if os.environ.get("TIDEGATE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")

    assert path.read_text(encoding="utf-8") == found


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", [None, *VALUE_SETS], ids=lambda path: "default" if path is None else path.stem)
def test_every_object_fits_kubernetes_schema(helm: str, values: Path | None, version: str) -> None:
    """Strictly: a field that this version does not know is an error."""
    wrong = []
    for each in rendered(helm, CHART, _arguments(values)):
        if each["apiVersion"].partition("/")[0] in THEIRS:
            continue
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except ValidationError as error:
            wrong.append(f"{each['kind']} {each['metadata']['name']}: {error}")

    assert wrong == []


def _pods(objects: list[dict]) -> Iterator[tuple[str, dict]]:
    for each in objects:
        name = f"{each['kind']} {each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each["spec"]
        elif "template" in each.get("spec", {}):
            yield name, each["spec"]["template"]["spec"]


@pytest.mark.parametrize("values", [None, *VALUE_SETS], ids=lambda path: "default" if path is None else path.stem)
def test_every_pod_of_ours_is_restricted(helm: str, values: Path | None) -> None:
    """Pod Security `restricted`, a root file system that cannot be written, and a token only for the operator."""
    for name, pod in _pods(rendered(helm, CHART, _arguments(values))):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        tokenless = pod.get("automountServiceAccountToken") is False
        assert tokenless == ("operator" not in name and "detach" not in name), name
        for container in pod["containers"]:
            if container["name"] == "side":
                continue  # a container that the user brings
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name


@pytest.mark.parametrize("values", [None, *VALUE_SETS], ids=lambda path: "default" if path is None else path.stem)
def test_no_role_of_ours_reaches_for_more(helm: str, values: Path | None) -> None:
    """No wildcards, no secrets, nothing that gives rights away; status is patched and nothing else of ours written."""
    for each in rendered(helm, CHART, _arguments(values)):
        for rule in each.get("rules", []) if each["kind"] in ("Role", "ClusterRole") else []:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]], each["metadata"]["name"]
            assert "secrets" not in rule["resources"]
            assert {"escalate", "bind", "impersonate"}.isdisjoint(rule["verbs"])
            if "tidegate.dev" in rule["apiGroups"]:
                assert set(rule["verbs"]) <= {"get", "list", "watch", "patch"}
                assert ("patch" in rule["verbs"]) == all(name.endswith("/status") for name in rule["resources"])


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("store.type=Memory", "/service/replicas"),
        ("store.type=Memory,service.replicas=1,service.autoscaling.enabled=true", "/service/autoscaling/enabled"),
        ("store.type=Postgres", "/store/type"),
        ("store.url=http://redis", "/store/url"),
        ("store.type=Memory,service.replicas=1,service.workers=2", "/service/workers"),
        ("service.workers=0", "/service/workers"),
        ("service.tracesEndpoint=collector:4317", "/service/tracesEndpoint"),
        ("operator.envoyService=limits", "/operator/envoyService"),
        ("gatewayApi.enabled=maybe", "/gatewayApi/enabled"),
        ("service.replica=2", "/service"),
        ("service.replicas=two", "/service/replicas"),
        ("service.deadline=fast", "/service/deadline"),
        ("tls.xds.mode=On", "/tls/xds/mode"),
        ("enforcement=Maybe", "/enforcement"),
        ("networkPolicy.redis.ports={70000}", "/networkPolicy/redis/ports/0"),
        ("service.secretMounts[0].name=x", "/service/secretMounts/0"),
        ("redis.enabled=false", "store.url:"),
        ("rbac.scope=namespaces", "rbac.namespaces:"),
        ("tls.xds.mode=ExistingSecret", "tls.xds.serverSecret"),
        ("tls.grpc.mode=ExistingSecret", "tls.grpc.existingSecret:"),
        ("tls.grpc.mode=CertManager", "tls.grpc.issuerRef.name:"),
        ("service.preStopSeconds=50", "service.preStopSeconds:"),
        ("store.type=Memory,service.replicas=1,store.url=redis://x", "store.url:"),
    ],
)
def test_a_bad_value_is_refused_with_its_path(helm: str, setting: str, path: str) -> None:
    """Before anything reaches a cluster."""
    with pytest.raises(Refused, match=re.escape(path)):
        rendered(helm, CHART, ["--set", setting])


def test_all_problems_are_told_at_once(helm: str) -> None:
    """Those that a schema cannot say, too."""
    with pytest.raises(Refused) as caught:
        rendered(helm, CHART, ["--set", "rbac.scope=namespaces,redis.enabled=false,service.preStopSeconds=50"])

    assert [
        path for path in ("rbac.namespaces", "store.url", "service.preStopSeconds") if path in str(caught.value)
    ] == [
        "rbac.namespaces",
        "store.url",
        "service.preStopSeconds",
    ]


@pytest.mark.parametrize(("chart", "setting"), [("tidegate", "crds.keep"), ("tidegate-crds", "keep")])
def test_definitions_are_kept_unless_told_otherwise(helm: str, chart: str, setting: str) -> None:
    """Uninstalling a chart must not take every policy with it."""
    for keep in ("true", "false"):
        found = rendered(helm, ROOT / "helm" / chart, ["--set", f"{setting}={keep}"])
        definitions = [each for each in found if each["kind"] == "CustomResourceDefinition"]
        policies = {each["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for each in definitions}

        assert len(definitions) == 2
        assert policies == ({"keep"} if keep == "true" else {None})


def test_the_definitions_are_those_of_the_repository(helm: str) -> None:
    """Beside labels and annotations of Helm, nothing is changed on the way."""
    for each in rendered(helm, ROOT / "helm" / "tidegate-crds"):
        name = each["metadata"]["name"].partition(".")[0]
        ours = yaml.safe_load((ROOT / "crds" / f"{name}.yaml").read_text(encoding="utf-8"))

        assert each["spec"] == ours["spec"]

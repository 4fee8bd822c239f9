"""Fixtures of the tests against a real API server: one for all, with our kinds installed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from e2e.cluster.build import MissingBinaries, find
from e2e.support.api_server import NAMESPACE, ApiServer, api_server
from e2e.support.kube import Kube
from e2e.support.processes import eventually

ROOT = Path(__file__).parent.parent.parent
CRDS = ROOT / "crds"

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API server, with `crds/` and the release's namespace."""
    try:
        binaries = find()
    except MissingBinaries as error:
        pytest.skip(str(error))
    with api_server(binaries, tmp_path_factory.mktemp("api")) as server:
        install(server)
        yield server


def install(server: ApiServer) -> None:
    """Everything that a cluster needs before the operator: definitions and the namespace."""
    kube = server.kube()
    kube.namespace(NAMESPACE)
    for path in (CRDS / "ratelimitpolicies.yaml", CRDS / "cacheprofiles.yaml", CRDS / "rbac.yaml"):
        for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            answer = kube.apply(manifest)
            assert answer.code in (200, 201), f"{path.name}: {answer.message}"
    for plural in ("ratelimitpolicies", "cacheprofiles"):
        eventually(
            f"{plural} to be served",
            lambda plural=plural: kube.get(f"/apis/tidegate.dev/v1alpha1/{plural}").code == 200,  # type: ignore[misc]
            timeout_s=60,
        )


@pytest.fixture
def kube(api: ApiServer) -> Kube:
    """The admin's client."""
    return api.kube()


@pytest.fixture
def namespace(kube: Kube) -> str:
    """A namespace of the test's own: namespaces never end here."""
    name = f"ns{next(_NUMBERS)}"
    kube.namespace(name)
    return name

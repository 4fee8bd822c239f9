"""Find or build the binaries of a real API server. As a program: make sure that they are there."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

SOURCES = Path(__file__).parent
CACHE = Path.home() / ".cache" / "tidegate" / "bin"
_VERSION = re.compile(r"^\s*k8s\.io/kubernetes (v[0-9.]+)$", re.MULTILINE)


class MissingBinaries(Exception):
    """There is no API server; the message says what to install."""


class Binaries(msgspec.Struct, frozen=True):
    """Command lines of the two programs, to which flags are added."""

    etcd: Sequence[str]
    api_server: Sequence[str]


def version() -> str:
    """Version of Kubernetes that the recipe pins, such as `v1.34.4`."""
    found = _VERSION.search((SOURCES / "go.mod").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def find() -> Binaries:
    """What KUBEBUILDER_ASSETS names, else what was built before."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        folder = Path(assets)
        missing = [name for name in ("etcd", "kube-apiserver") if not (folder / name).is_file()]
        if missing:
            raise MissingBinaries(f"KUBEBUILDER_ASSETS={assets} lacks {', '.join(missing)}")
        return Binaries([str(folder / "etcd")], [str(folder / "kube-apiserver")])
    kube = CACHE / "kube"
    if not _is_current(kube):
        raise MissingBinaries("no API server: run `make e2e`, which builds one, or set KUBEBUILDER_ASSETS")
    return Binaries([str(kube), "etcd"], [str(kube), "kube-apiserver"])


def _sources() -> str:
    """What the binary is made of, so that a changed recipe is built anew."""
    files = (SOURCES / "main.go", SOURCES / "go.mod")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _is_current(kube: Path) -> bool:
    made_of = kube.with_suffix(".sources")
    return kube.is_file() and made_of.is_file() and made_of.read_text(encoding="utf-8") == _sources()


def build() -> None:
    """Build the binary unless there is one."""
    try:
        find()
    except MissingBinaries as error:
        if os.environ.get("KUBEBUILDER_ASSETS"):
            raise
        go = shutil.which("go")
        if go is None:
            raise MissingBinaries("no API server and no Go to build one: install golang-go, 1.24 or newer") from error
        major, minor, _ = version().removeprefix("v").split(".")
        print("building etcd and kube-apiserver from Go modules: about ten minutes, once", file=sys.stderr)
        CACHE.mkdir(parents=True, exist_ok=True)
        draft = CACHE / f"kube.{os.getpid()}"
        stamp = "k8s.io/component-base/version"
        flags = f"-s -w -X {stamp}.gitVersion={version()} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
        subprocess.run(
            [go, "build", "-mod=mod", "-trimpath", "-tags", "providerless", "-ldflags", flags, "-o", draft, "."],
            cwd=SOURCES,
            check=True,
            env={**os.environ, "CGO_ENABLED": "0"},
        )
        draft.rename(CACHE / "kube")
        (CACHE / "kube.sources").write_text(_sources(), encoding="utf-8")
        # Called by that name, the binary is kubectl.
        (CACHE / "kubectl").unlink(missing_ok=True)
        (CACHE / "kubectl").symlink_to("kube")


if __name__ == "__main__":
    try:
        build()
    except (MissingBinaries, subprocess.CalledProcessError) as error:
        sys.exit(str(error))

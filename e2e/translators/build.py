"""Build Istio's and Envoy Gateway's own translators out of their Go modules, into ~/.cache/tidegate/bin.

`python -m e2e.translators.build`: some minutes each the first time, nothing when they are there. They need Go and the
modules; no cluster, no image. What they prove: that code of those projects turns what we render into configuration
that a real Envoy obeys. Not: a whole Istio or a whole Envoy Gateway.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("TIDEGATE_CACHE", str(Path.home() / ".cache" / "tidegate")))
ISTIO = CACHE / "bin" / "istio-translate"
ENVOY_GATEWAY = CACHE / "bin" / "egctl"
BUILT = {"istio": ISTIO, "envoy-gateway": ENVOY_GATEWAY}
"""By the name that tests ask for them with."""

EG_MODULE = "github.com/envoyproxy/gateway"
EG_VERSION = "v1.9.1"

_SCHEME = """\
	if t.RuntimeFlags == nil {
		return false
	}
	return t.RuntimeFlags.IsEnabled(egv1a1.XDSNameSchemeV2)"""
"""egctl sets no runtime flags, so its translation has the first scheme only; the patch asks the environment too."""


def _run(command: list[str], folder: Path, **environment: str) -> None:
    subprocess.run(["nice", "-n", "10", *command], cwd=folder, env={**os.environ, **environment}, check=True)


def is_current(name: str) -> bool:
    """Whether a translator is there and made of the sources that are here."""
    stamp = _stamp(BUILT[name])
    return BUILT[name].exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == _sources(name)


def _stamp(binary: Path) -> Path:
    return binary.with_suffix(".sources")


def _sources(name: str) -> str:
    """What a binary is made of, so that a changed recipe is built anew."""
    recipe = sorted((HERE / "istio").glob("*")) if name == "istio" else []
    text = b"".join(path.read_bytes() for path in recipe) or f"{EG_VERSION}{_SCHEME}".encode()
    return hashlib.sha256(text).hexdigest()


def _keep(draft: Path, name: str) -> None:
    """Put a binary in its place whole: a test may be running the one that is there."""
    draft.rename(BUILT[name])
    _stamp(BUILT[name]).write_text(_sources(name), encoding="utf-8")


def build_istio() -> None:
    """The translation of istiod as a test binary."""
    if not is_current("istio"):
        ISTIO.parent.mkdir(parents=True, exist_ok=True)
        draft = ISTIO.with_suffix(f".{os.getpid()}")
        _run(["go", "test", "-c", "-o", str(draft), "."], HERE / "istio", GOFLAGS="-mod=mod")
        _keep(draft, "istio")


def build_envoy_gateway() -> None:
    """egctl, with a switch for the second scheme of names in the environment: EG_XDS_NAME_SCHEME_V2=true."""
    if is_current("envoy-gateway"):
        return
    source = CACHE / "src" / f"envoy-gateway-{EG_VERSION}"
    if not source.exists():
        _run(["go", "mod", "download", f"{EG_MODULE}@{EG_VERSION}"], HERE)
        modules = subprocess.run(["go", "env", "GOMODCACHE"], check=True, capture_output=True, text=True).stdout.strip()
        shutil.copytree(Path(modules) / f"{EG_MODULE}@{EG_VERSION}", source, copy_function=shutil.copyfile)
        for path in (source, *source.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        translator = source / "internal" / "xds" / "translator" / "translator.go"
        text = translator.read_text(encoding="utf-8")
        if text.count(_SCHEME) != 1:
            sys.exit(f"{translator}: the scheme of names is chosen elsewhere in {EG_VERSION}")
        asked = f'\tif os.Getenv("EG_XDS_NAME_SCHEME_V2") == "true" {{\n\t\treturn true\n\t}}\n{_SCHEME}'
        text = text.replace(_SCHEME, asked).replace("import (\n", 'import (\n\t"os"\n', 1)
        translator.write_text(text, encoding="utf-8")
    ENVOY_GATEWAY.parent.mkdir(parents=True, exist_ok=True)
    draft = ENVOY_GATEWAY.with_suffix(f".{os.getpid()}")
    _run(
        ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(draft), "./cmd/egctl"],
        source,
        CGO_ENABLED="0",
        GOFLAGS="-mod=mod",
    )
    _keep(draft, "envoy-gateway")


if __name__ == "__main__":
    build_istio()
    build_envoy_gateway()

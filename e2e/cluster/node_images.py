"""Make the images that a node needs out of static binaries: cluster DNS, the pause of a pod, metrics-server."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.images import layer, write_image


def main(arguments: Sequence[str]) -> int:
    """`CACHE OUT NAME…`: of each binary `bin/NAME` below the cache an image `OUT/NAME.tar`."""
    cache, out, *names = arguments
    Path(out).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            top = Path(scratch) / f"{name}.tar"
            layer({name: Path(cache) / "bin" / name}, top)
            write_image(Path(out) / f"{name}.tar", f"docker.io/local/{name}:1", [top], [f"/{name}"], [])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

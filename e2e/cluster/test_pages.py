"""The blocks marked `cluster` of these pages, run by a shell on the real cluster as a reader would."""

from __future__ import annotations

import os
import subprocess
from itertools import zip_longest
from pathlib import Path

import pytest

from e2e.cluster.conftest import LOCAL_VALUES, ROOT
from e2e.cluster.kubectl import PATH, Cluster
from support.pages import blocks, expected_pattern, tidy

PAGES = ("install-with-helm.md",)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(installed: Cluster, page: str, tmp_path: Path) -> None:
    """In order, in a folder of the reader's own; only the images are the local ones."""
    (tmp_path / "helm").symlink_to(ROOT / "helm")
    environment = {**os.environ, "KUBECONFIG": installed.kubeconfig, "PATH": PATH}
    path = next((ROOT / "docs").rglob(page))
    found = list(blocks(path))
    for block, following in zip_longest(found, found[1:]):
        if block.language == "yaml":
            (tmp_path / block.name).write_text(block.body, encoding="utf-8")
        if "cluster" not in block.words:
            continue
        script = block.body.replace("helm/tidegate ", f"helm/tidegate --values {LOCAL_VALUES} ")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{page}:{block.line}\n{done.stdout}\n{done.stderr}"
        if following is not None and following.language == "text":
            assert expected_pattern(following.body).search(tidy(done.stdout)), f"{page}:{block.line}\n{done.stdout}"

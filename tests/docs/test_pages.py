"""Every code block of the documentation does what its page says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest

from support.pages import Block, blocks, expected_pattern, tidy

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
KNOWN = {"yaml", "sh", "text", "python", "mermaid", "proto", "promql", "json"}
START_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Reader:
    """Follows one page as a reader would, in a folder of its own and on ports that are free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in ("8081", "8080", "10000", "9901", "6379")}
        self.background: list[subprocess.Popen[str]] = []
        self.output = ""
        (folder / "examples").symlink_to(ROOT / "examples")
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "120",
            "TERM": "dumb",
            "TIDEGATE_TARGET": f"127.0.0.1:{self.ports['8081']}",
            "TIDEGATE_GRPC": f"127.0.0.1:{self.ports['8081']}",
            "TIDEGATE_ADMIN": f"127.0.0.1:{self.ports['8080']}",
            "TIDEGATE_DRAIN_DELAY": "0s",
        }

    def here(self, text: str) -> str:
        for port, free in self.ports.items():
            for before in (":", "port_value: ", "--port "):
                text = text.replace(f"{before}{port}", f"{before}{free}")
        return text

    def write(self, block: Block) -> Path:
        path = self.folder / block.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.here(block.body), encoding="utf-8")
        return path

    def run(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        self.output = done.stdout
        self.status = done.returncode

    def start(self, body: str, wanted: str) -> None:
        log = self.folder / f"background-{len(self.background)}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                ["bash", "-euc", f"exec {self.here(body).strip()}"],
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.background.append(process)
        pattern = expected_pattern(self.here(wanted))
        deadline = time.monotonic() + START_S
        while not pattern.search(tidy(log.read_text())):
            assert process.poll() is None, f"it ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"waited for {wanted!r} in:\n{log.read_text()}"
            time.sleep(0.05)

    def close(self) -> None:
        for process in reversed(self.background):
            process.send_signal(signal.SIGTERM)
        for process in self.background:
            process.wait(timeout=30)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    follows = Reader(tmp_path)
    yield follows
    follows.close()


def follow(reader: Reader, block: Block, following: Block | None) -> None:
    where = f"{block.page.relative_to(ROOT)}:{block.line}"
    expects_text = following is not None and following.language == "text"
    if block.language == "yaml":
        path = reader.write(block)
        command = (
            ["envoy", "--mode", "validate", "-c", str(path)]
            if "envoy" in block.words
            else ["tidegate", "validate", str(path)]
        )
        reader.run(command)
        assert reader.status == 0, f"{where}:\n{reader.output}"
    elif block.language == "json":
        json.loads(block.body)
    elif block.language == "python":
        reader.run([sys.executable, str(reader.write(block))])
        assert reader.status == 0, f"{where}:\n{reader.output}"
    elif block.language == "sh" and "background" in block.words:
        assert expects_text, f"{where}: a background block needs a text block to wait for"
        reader.start(block.body, following.body if following else "")
    elif block.language == "sh" and "cluster" in block.words:
        followed = (ROOT / "e2e" / "cluster" / "test_pages.py").read_text(encoding="utf-8")
        assert f'"{block.page.name}"' in followed, f"{where}: no test follows this page on a cluster"
    elif block.language == "sh" and "ci" in block.words:
        script = (ROOT / ".ci" / "run").read_text()
        missing = [
            line
            for line in block.body.splitlines()
            if line.split("#")[0].strip() and line.split("#")[0].strip() not in script
        ]
        assert not missing, f"{where}: .ci/run does not run {missing}"
    elif block.language == "sh":
        reader.run(["bash", "-uo", "pipefail", "-c", reader.here(block.body)])
        if expects_text and following is not None:
            assert expected_pattern(reader.here(following.body)).search(tidy(reader.output)), (
                f"{where}: printed\n{reader.output}"
            )
        else:
            assert reader.status == 0, f"{where}:\n{reader.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_the_page_does_what_it_says(page: Path, reader: Reader) -> None:
    """Blocks run in order; outputs match; an unknown language is an error, so no block goes unread."""
    found = list(blocks(page))
    assert {block.language for block in found} <= KNOWN

    for block, following in zip_longest(found, found[1:]):
        follow(reader, block, following)


def test_links_between_pages_lead_somewhere() -> None:
    """A relative link in a page names a file that exists."""
    import re

    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]

    assert broken == []

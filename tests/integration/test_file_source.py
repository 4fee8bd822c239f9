"""Real files, real links and a real watching process: every way in which policies change on disk."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.snapshot import Rule, Snapshot
from ratelimit_service.sources.contract import Applied, Refused
from ratelimit_service.sources.files import FileSource

_DEADLINE_S = 20.0


def _policy(requests: int, domain: str = "shop.checkout", name: str = "checkout") -> str:
    return f"""\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: {name}, namespace: shop}}
spec:
  domain: {domain}
  rules:
  - name: per-user
    match: [{{key: user, type: Any}}]
    limits: [{{requests: {requests}, window: 10s}}]
"""


class Recorder:
    """Applies snapshots to itself, and refuses on demand."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.refuse = False
        self.told: list[str] = []

    def apply(self, snapshot: Snapshot) -> Applied | Refused:
        if self.refuse:
            return Refused((Problem("store", "", "cannot be applied"),))
        self.snapshots.append(snapshot)
        return Applied(snapshot.version)

    def load_succeeded(self, applied: Applied, duration_us: int) -> None:
        self.told.append(applied.version)

    def load_failed(self, problems: Sequence[Problem], duration_us: int) -> None:
        self.told.append("refused")

    @property
    def requests(self) -> list[int]:
        return [limit.limit.requests for rule in self.rules for limit in rule.limits]

    @property
    def rules(self) -> list[Rule]:
        return [rule for domain in self.snapshots[-1].domains.values() for rule in domain.rules]


async def _until(claim: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _DEADLINE_S
    while not claim():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def _watching(*paths: Path) -> AsyncIterator[tuple[FileSource, Recorder, Applied | Refused]]:
    recorder = Recorder()
    source = FileSource([str(path) for path in paths], recorder.apply, observer=recorder, poll_ms=50)
    try:
        yield source, recorder, await source.start()
    finally:
        await source.close()


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text)
    temporary.rename(path)


def test_files_are_applied_at_start_and_after_an_atomic_rename(tmp_path: Path) -> None:
    """The first set is applied by `start`; a renamed file within the poll; identities stay."""

    async def scenario() -> None:
        _replace(tmp_path / "a.yaml", _policy(5))
        async with _watching(tmp_path) as (source, recorder, first):
            assert first == Applied(source.version)
            assert recorder.requests == [5]
            identity = recorder.rules[0].limits[0].identity

            _replace(tmp_path / "a.yaml", _policy(6))
            await _until(lambda: recorder.requests == [6])

            assert recorder.rules[0].limits[0].identity == identity
            assert (source.loads, source.load_errors, source.problems) == (2, 0, ())
            assert recorder.told[-1] == source.version
            assert source.last_success_us > 0
            assert source.last_duration_us > 0

    asyncio.run(scenario())


def test_changes_are_read_in_bursts(tmp_path: Path) -> None:
    """From the second set on the watching process rests five times a millisecond; one is asked for."""

    def used(pid: int) -> tuple[int, float]:
        rests = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        assert rests is not None
        return int(rests[1]), sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    async def scenario() -> None:
        for number in range(150):
            _replace(tmp_path / f"{number}.yaml", _policy(5, f"shop.{number}", f"p{number}"))
        others = _children()
        async with _watching(tmp_path) as (source, _, _):
            (watcher,) = set(_children()) - set(others)
            rests, spent_s = used(watcher)
            for number in range(150):
                _replace(tmp_path / f"{number}.yaml", _policy(6, f"shop.{number}", f"p{number}"))
            await _until(lambda: source.loads > 1)
            rests_after, spent_after_s = used(watcher)

        assert rests_after - rests >= (spent_after_s - spent_s) * 1_000

    asyncio.run(scenario())


def test_a_mounted_configmap_is_taken_when_its_link_is_swapped(tmp_path: Path) -> None:
    """`..data` is renamed over, as the kubelet does; the files' own links never change."""

    async def scenario() -> None:
        for number in (1, 2):
            (tmp_path / f"..v{number}").mkdir()
            (tmp_path / f"..v{number}/a.yaml").write_text(_policy(number))
        (tmp_path / "..data").symlink_to("..v1")
        (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
        async with _watching(tmp_path) as (_, recorder, _first):
            assert recorder.requests == [1]

            (tmp_path / "..data_tmp").symlink_to("..v2")
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            await _until(lambda: recorder.requests == [2])

    asyncio.run(scenario())


def test_a_file_written_in_place_in_the_same_tick_is_taken(tmp_path: Path) -> None:
    """Same size, same inode, and a time stamp set back: the content decides while a file is fresh."""

    async def scenario() -> None:
        path = tmp_path / "a.yaml"
        path.write_text(_policy(5))
        status = path.stat()
        async with _watching(path) as (_, recorder, _first):
            path.write_text(_policy(7))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            await _until(lambda: recorder.requests == [7])

    asyncio.run(scenario())


def test_a_bad_set_is_refused_whole_and_the_last_good_one_stays(tmp_path: Path) -> None:
    """One bad file refuses the good change beside it; mending it takes both."""

    async def scenario() -> None:
        _replace(tmp_path / "a.yaml", _policy(5))
        async with _watching(tmp_path) as (source, recorder, _first):
            _replace(tmp_path / "b.yaml", "kind: [")
            await _until(lambda: source.load_errors == 1)
            _replace(tmp_path / "a.yaml", _policy(6))
            await _until(lambda: source.load_errors == 2)

            assert recorder.requests == [5]
            assert source.problems[0].object.endswith("b.yaml")
            assert recorder.told[-1] == "refused"

            (tmp_path / "b.yaml").unlink()
            await _until(lambda: recorder.requests == [6])
            assert source.problems == ()

    asyncio.run(scenario())


def test_a_bad_set_at_start_is_told_and_watching_goes_on(tmp_path: Path) -> None:
    """A missing path is a problem, until it is there."""

    async def scenario() -> None:
        path = tmp_path / "later.yaml"
        async with _watching(path) as (source, recorder, first):
            assert isinstance(first, Refused)
            assert first.problems == source.problems
            assert source.version == ""

            _replace(path, _policy(5))
            await _until(lambda: bool(source.version))
            assert recorder.requests == [5]

    asyncio.run(scenario())


def test_an_empty_folder_is_an_empty_configuration(tmp_path: Path) -> None:
    """It is applied, with no domain."""

    async def scenario() -> None:
        async with _watching(tmp_path) as (source, recorder, first):
            assert first == Applied(source.version)
            assert recorder.snapshots[-1].domains == {}

    asyncio.run(scenario())


def test_a_set_that_means_the_same_is_not_applied_again(tmp_path: Path) -> None:
    """A comment is a load, and no change: counters and memos stay warm."""

    async def scenario() -> None:
        _replace(tmp_path / "a.yaml", _policy(5))
        async with _watching(tmp_path) as (source, recorder, _first):
            _replace(tmp_path / "a.yaml", "# a comment\n" + _policy(5))
            await _until(lambda: source.loads == 2)

            assert len(recorder.snapshots) == 1

    asyncio.run(scenario())


def test_what_the_limiter_refuses_is_told(tmp_path: Path) -> None:
    """`apply` has the last word; the version in force stays."""

    async def scenario() -> None:
        _replace(tmp_path / "a.yaml", _policy(5))
        async with _watching(tmp_path) as (source, recorder, first):
            recorder.refuse = True
            _replace(tmp_path / "a.yaml", _policy(6))
            await _until(lambda: source.load_errors == 1)

            assert first == Applied(source.version)
            assert [problem.message for problem in source.problems] == ["cannot be applied"]

    asyncio.run(scenario())


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [int(child) for child in text.split()]


def test_a_killed_watcher_is_told_and_started_again(tmp_path: Path) -> None:
    """Its death takes no policy away, and changes are seen again afterwards."""

    async def scenario() -> None:
        _replace(tmp_path / "a.yaml", _policy(5))
        others = _children()
        async with _watching(tmp_path) as (source, recorder, _first):
            (watcher,) = set(_children()) - set(others)
            os.kill(watcher, signal.SIGKILL)
            await _until(lambda: source.load_errors == 1)
            assert "started again" in source.problems[0].message

            _replace(tmp_path / "a.yaml", _policy(6))
            await _until(lambda: recorder.requests == [6])
        assert _children() == others

    asyncio.run(scenario())


def test_close_before_start_is_harmless() -> None:
    """A program that fails early may close everything."""
    asyncio.run(FileSource(["none"], Recorder().apply).close())

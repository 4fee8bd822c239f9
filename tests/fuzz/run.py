"""Fuzz the wire and stored payloads: `python -m tests.fuzz.run [--seconds N] [--minimise] [TARGET …]`.

Each target runs in a process of its own, bounded in memory, from the kept corpus and from what earlier runs on this
machine found. A crash, a failed assertion, a hang or too much memory ends with exit code 1 and leaves its input in
`build/fuzz/crashes`; once it is fixed, the input belongs into the kept corpus, under a name that says what it was.
`--minimise` fuzzes nothing: it makes the kept corpus anew, the fewest inputs that reach what it and earlier runs
reach. Needs atheris (exit code 2 without it).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

TESTS: Final = Path(__file__).parent.parent
KEPT: Final = TESTS / "fuzz" / "corpus"
TARGETS: Final = tuple(sorted(each.name for each in KEPT.iterdir()))
"""Each has a folder of inputs."""
FOUND: Final = Path("build/fuzz")
MOST_MIB: Final = 256
"""Of one target's process, interpreter and oracles included."""
MOST_INPUT_BYTES: Final = 1_000
LONGEST_INPUT_S: Final = 10
_STARTING_S: Final = 600
"""Imports and instrumentation, on a machine that has other things to do."""
_BY_HASH: Final = re.compile("[0-9a-f]{40}").fullmatch
"""How libFuzzer names its inputs."""


class Figures(NamedTuple):
    """What one target's run came to.

    Attributes:
        executions: Inputs tried.
        new: Inputs that reached something new.
        peak_mib: Most memory, resident.
    """

    executions: int
    new: int
    peak_mib: int


def read_figures(log: str) -> Figures:
    """The final statistics of libFuzzer; what is missing is 0."""
    found = dict(re.findall(r"stat::(\w+):\s+(\d+)", log))
    names = ("number_of_executed_units", "new_units_added", "peak_rss_mb")
    return Figures(*(int(found.get(name, 0)) for name in names))


def _harness(target: str, *arguments: str, log: Path, longest_s: float) -> int:
    command = [sys.executable, "-m", "fuzz.harness", target, f"-max_len={MOST_INPUT_BYTES}", *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    with log.open("wb") as output:
        try:
            return subprocess.run(
                command, env=environment, stdout=output, stderr=output, timeout=longest_s, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            output.write(b"the process did not end in time\n")
            return 1


def fuzz(target: str, seconds: int) -> bool:
    """Fuzz one target and print its line; False: it found something."""
    corpus, crashes, log = FOUND / "corpus" / target, FOUND / "crashes", FOUND / f"{target}.log"
    for folder in (corpus, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    code = _harness(
        target, f"-max_total_time={seconds}", f"-rss_limit_mb={MOST_MIB}", f"-timeout={LONGEST_INPUT_S}",
        "-print_final_stats=1", f"-artifact_prefix={crashes / target}-", str(corpus), str(KEPT / target),
        log=log, longest_s=seconds + _STARTING_S,
    )  # fmt: skip
    text = log.read_text(errors="replace")
    figures = read_figures(text)
    verdict = "ok" if code == 0 else f"FAILED ({code}), see {log}"
    print(
        f"{target:12} {figures.executions:>12,} {figures.executions // seconds:>8,} {figures.new:>6,}"
        f" {figures.peak_mib:>10,}  {verdict}",
        flush=True,
    )
    if code:
        print("\n".join(text.splitlines()[-30:]))
    return code == 0


def minimise(target: str) -> None:
    """Make the kept corpus of one target anew; inputs that were given a name stay."""
    kept, earlier = KEPT / target, FOUND / "corpus" / target
    earlier.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        code = _harness(
            target, "-set_cover_merge=1", "-use_counters=0", folder, str(kept), str(earlier),
            log=FOUND / f"{target}.log", longest_s=600,
        )  # fmt: skip
        fewest = sorted(Path(folder).iterdir())
        if code or not fewest:
            sys.exit(f"{target}: the corpus cannot be minimised, see {FOUND / target}.log")
        for each in kept.iterdir():
            if _BY_HASH(each.name):
                each.unlink()
        for each in fewest:
            shutil.copy(each, kept / each.name)
    print(f"{target}: {len(fewest)} inputs kept")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0: nothing was found; 1: something was; 2: atheris is not here."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description="Fuzz the wire and stored payloads.")
    parser.add_argument("--seconds", type=int, default=60, help="of all targets together (default 60)")
    parser.add_argument("--minimise", action="store_true", help="make the kept corpus anew and fuzz nothing")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default all)")
    options = parser.parse_args(arguments)
    targets = options.targets or TARGETS
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: it is there for the newest interpreter on Linux x86-64", file=sys.stderr)
        return 2
    if options.minimise:
        for target in targets:
            minimise(target)
        return 0
    print(f"{'target':12} {'executions':>12} {'exec/s':>8} {'new':>6} {'peak MiB':>10}")
    seconds = max(1, options.seconds // len(targets))
    passed = [fuzz(target, seconds) for target in targets]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())

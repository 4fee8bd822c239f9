"""Policies and Gateway API objects, for commands that render or explain where policies attach.

Out of files, or out of a cluster. Those of files are not restricted by namespace; of a cluster's only those are taken
that its operator would take.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NoReturn

import click
import msgspec
from rich.console import Console
from rich.text import Text

from ratelimit_service.cli.validate import problem_text
from ratelimit_service.policy.compile import plan_set, refuses
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import MAX_FILE_BYTES, SourceFile, parse, plain
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import assemble
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.policy.targets.held import READERS, Held, NotReadable
from ratelimit_service.policy.targets.reading import is_of_topology, read_topology
from ratelimit_service.policy.targets.topology import Topology
from ratelimit_service.policy.wording import count_text
from ratelimit_service.sources.loading import read_file
from ratelimit_service.sources.scan import scan

STDIN: Final = "-"
"""Path that stands for standard input."""


class Manifests(msgspec.Struct, frozen=True):
    """What a set of files, or a cluster, says.

    Attributes:
        policies: Of files in order of sorted path, then document.
        topology: The Gateways and routes among them.
        snapshot: What a service would run.
        platforms: Namespaces that may do what tenants may not, None: nothing is restricted by namespace.
    """

    policies: tuple[RateLimitPolicy, ...]
    topology: Topology
    snapshot: Snapshot
    platforms: frozenset[str] | None = None

    def is_platform(self, namespace: str) -> bool:
        """Whether policies of a namespace may write where they reach every other."""
        return self.platforms is None or namespace in self.platforms


def read_manifests(paths: Sequence[str]) -> Manifests:
    """Read files and folders as one set, `-`: standard input, where `kubectl get -o yaml` may write.

    Tells every problem and exits with 1 when any of them refuses the set.
    """
    seen = scan([path for path in paths if path != STDIN])
    problems = list(seen.problems)
    files: list[SourceFile] = []
    if STDIN in paths:
        files.append(SourceFile("standard input", sys.stdin.buffer.read(MAX_FILE_BYTES + 1)))
    for stamp in seen.files:
        content = read_file(stamp.name)
        if isinstance(content, Problem):
            problems.append(content)
        else:
            files.append(SourceFile(stamp.name, content))
    objects, found = decode(files)
    plans, conflicts = plan_set(objects, CompileOptions())
    # Of targets and foreign objects the commands that come here know more than a service that reads files.
    problems += [each for each in (*found, *conflicts) if each.severity is Severity.ERROR]
    stop_if_refused(problems)
    policies = tuple(item for item in objects if isinstance(item, RateLimitPolicy))
    return Manifests(policies, read_topology(list(_foreign(files))), assemble(plans))


def read_cluster(kubeconfig: str) -> Manifests:
    """Read what the API server holds; policies that its operator would not take are told and left out.

    Tells why and exits with 1 when it cannot be read.
    """
    try:
        held = _reader()(kubeconfig)
    except NotReadable as error:
        give_up(str(error))
    errors = Console(stderr=True, soft_wrap=True)
    for line in held.passed_over:
        errors.print(Text(line, style="yellow"))
    # Where hits are counted is nothing that Envoy knows, and profiles were not read.
    plans, problems = plan_set([_without_profile(each) for each in held.policies], CompileOptions())
    stop_if_refused([each for each in problems if each.severity is Severity.ERROR])
    return Manifests(held.policies, held.topology, assemble(plans), held.platforms)


def _without_profile(policy: RateLimitPolicy) -> RateLimitPolicy:
    return msgspec.structs.replace(policy, spec=msgspec.structs.replace(policy.spec, cache_profile_ref=None))


def _reader() -> Callable[[str], Held]:
    """What reads a cluster; it comes with the operator's package."""
    for found in importlib.metadata.entry_points(group=READERS, name="manifests"):
        read: Callable[[str], Held] = found.load()
        return read
    raise click.UsageError("--cluster needs the operator's package: pip install tidegate[operator]")


def _foreign(files: Sequence[SourceFile]) -> Iterator[Mapping[str, object]]:
    for file in sorted(files, key=lambda each: each.name):
        for document in parse(file)[0]:
            value = plain(document.root)
            items = value.get("items") if isinstance(value, dict) and value.get("kind") == "List" else [value]
            for item in items if isinstance(items, list) else []:
                if isinstance(item, dict) and is_of_topology(item):
                    yield item


def tell(problems: Sequence[Problem]) -> None:
    """Write problems to standard error, one a line."""
    errors = Console(stderr=True, soft_wrap=True)
    for problem in problems:
        errors.print(problem_text(problem))


def stop_if_refused(problems: Sequence[Problem]) -> None:
    """Tell the problems; exit with 1 when any of them is an error."""
    tell(problems)
    if refuses(problems):
        count = sum(problem.severity is Severity.ERROR for problem in problems)
        give_up(f"refused: {count_text(count, 'error')}")


def give_up(message: str) -> NoReturn:
    """Say why on standard error and exit with 1."""
    Console(stderr=True, soft_wrap=True).print(Text(message, style="bold red"))
    raise click.exceptions.Exit(1)

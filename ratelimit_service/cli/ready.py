"""What `serve` prints when it is ready."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ratelimit_service.policy.snapshot import Action, Snapshot
from ratelimit_service.policy.tree import Chain, Step, StepKind, walk_rules
from ratelimit_service.policy.wording import count_text

_PROGRAM: Final = "tidegate"

_ANY_VALUE: Final = "alice"
"""Stands for any value in the line to try."""

_MAX_REPEAT: Final = 20
"""Most rows that the line to try asks for."""


def command_name(started_as: str, on_path: str | None) -> str:
    """How the reader may type this program's name.

    Args:
        started_as: `sys.argv[0]`.
        on_path: What a shell finds for `tidegate`, None: nothing.
    """
    path = Path(started_as)
    if path.name != _PROGRAM or on_path is not None:
        return _PROGRAM
    return os.path.relpath(path)


def ready_text(
    version: str, grpc: Sequence[str], admin: Sequence[str], snapshot: Snapshot | None, command: str = "tidegate"
) -> str:
    """Addresses, what is in force, and a `tidegate check` line to try.

    Args:
        version: Of the program.
        grpc: Where Envoy may ask; at least one.
        admin: Where the admin pages are.
        snapshot: What is in force, None: nothing yet.
        command: How to type the program's name (`command_name`).
    """
    lines = [f"tidegate {version} is ready: grpc {' '.join(grpc)} admin {' '.join(admin)}"]
    if snapshot is None:
        return "\n".join(
            [*lines, "no policies in force: /readyz says why; every call is UNAVAILABLE until they are good"]
        )
    counts = f"{count_text(len(snapshot.domains), 'domain')}, {count_text(snapshot.rule_count, 'rule')}"
    lines.append(f"policies: {counts}, version {snapshot.version}")
    question = _question(snapshot)
    if question:
        lines.append(f"try: {command} check --target {_dialled(grpc[0])} {question}")
    return "\n".join(lines)


def _question(snapshot: Snapshot) -> str:
    """What shows a limit soonest: domain and entries of the smallest one that is enforced, empty: there is none."""
    candidates = [
        (min(item.limit.requests for item in rule.limits), len(chain), domain.name, chain)
        for domain in snapshot.domains.values()
        for chain, rule in walk_rules(domain.root)
        if rule.action is Action.LIMIT and rule.limits and not rule.shadow
    ]
    if not candidates:
        return ""
    requests, _, domain_name, chain = min(candidates, key=lambda candidate: candidate[:2])
    repeat = str(min(requests + 2, _MAX_REPEAT))
    return shlex.join(["--domain", domain_name, *_entries(chain), "--repeat", repeat])


def _entries(chain: Chain) -> list[str]:
    return [f"{_shown(step.key)}={_value(step)}" for step in chain]


def _value(step: Step) -> str:
    if step.kind is StepKind.BARE:
        return _ANY_VALUE
    return _shown(step.value) if step.kind is StepKind.EXACT else _shown(step.value).replace("*", "1")


def _shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _dialled(address: str) -> str:
    """An address to connect to: every interface includes loopback."""
    return address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")

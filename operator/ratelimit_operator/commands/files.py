"""Manifests of files, for commands that compare or try them with the API server."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from ratelimit_service.policy.decode import Manifest, decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.problems import Severity
from ratelimit_service.policy.profile_model import CacheProfile


def read_files(paths: Iterable[Path]) -> list[Manifest]:
    """Our kinds out of files and folders; problems are told, and an error among them ends the command with 2."""
    files: list[SourceFile] = []
    for path in paths:
        found = sorted(each for each in path.rglob("*.y*ml") if each.is_file()) if path.is_dir() else [path]
        files += [SourceFile(str(each), each.read_bytes()) for each in found]
    objects, problems = decode(files)
    for problem in problems:
        click.echo(f"{problem.severity.value}: {problem}", err=True)
    if any(problem.severity is Severity.ERROR for problem in problems):
        sys.exit(2)
    return [each for each in objects if isinstance(each, RateLimitPolicy | CacheProfile)]

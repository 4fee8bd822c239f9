"""`tidegate migrate`: configurations of other limiters as ours, with everything told that is not the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from ratelimit_service.cli.validate import problem_text
from ratelimit_service.migration.envoyproxy import migrate_envoyproxy, write_yaml
from ratelimit_service.migration.old_config import (
    FieldReport,
    InvalidOldConfig,
    RateLimitingConfigMigrator,
    ValidationResult,
)
from ratelimit_service.migration.profile_manifest import SECRET_NAME, profile_of, program_of
from ratelimit_service.policy.documents import SourceFile, parse, plain
from ratelimit_service.policy.wording import count_text

_INPUT = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; not given: standard output."
)
_STYLES = {"kept": "green", "changed": "yellow", "dropped": "red"}


@click.group
def migrate() -> None:
    """Turn configurations of other limiters into ours."""


@migrate.command("envoyproxy")
@click.argument("paths", nargs=-1, required=True, type=_INPUT, metavar="FILE…")
@click.option("--namespace", default="default", show_default=True, help="Namespace of the policies.")
@click.option("--merge-domain-config", is_flag=True, help="As for `serve`.")
@_OUTPUT
def envoyproxy(paths: tuple[Path, ...], namespace: str, merge_domain_config: bool, output: Path | None) -> None:
    """Turn YAML of envoyproxy/ratelimit into RateLimitPolicy manifests that decide the same.

    What has no counterpart is told with its line; then the manifests of the rest are written, and the exit code is 1.
    """
    files = [SourceFile(str(path), path.read_bytes()) for path in paths]
    migrated = migrate_envoyproxy(files, namespace=namespace, merge_domains=merge_domain_config)
    errors = Console(stderr=True, soft_wrap=True)
    for problem in migrated.problems:
        errors.print(problem_text(problem))
    _write(migrated.to_yaml(), output)
    rules = sum(len(manifest["spec"]["rules"]) for manifest in migrated.manifests)
    errors.print(Text(f"{count_text(len(migrated.manifests), 'manifest')}, {count_text(rules, 'rule')}"))
    if not migrated.is_complete:
        sys.exit(1)


@migrate.command("config")
@click.argument("path", type=_INPUT, metavar="FILE")
@click.option("--name", default="migrated", show_default=True, help="Name of the profile.")
@_OUTPUT
def config(path: Path, name: str, output: Path | None) -> None:
    """Turn a configuration of the older library (JSON or YAML) into a CacheProfile, and tell what became of each field.

    Exits with 1 where a field has no counterpart.
    """
    errors = Console(stderr=True, soft_wrap=True)
    old = _read(path, errors)
    migrator = RateLimitingConfigMigrator()
    try:
        new = migrator.migrate_from_old_config(old)
        told = migrator.validate_migration(old, new)
    except InvalidOldConfig as wrong:
        for finding in wrong.findings:
            errors.print(Text.assemble(("error: ", "red"), f"{path}: {finding}"))
        sys.exit(1)
    profile = profile_of(new, name)
    _write(write_yaml([profile]), output)
    _tell(told, errors)
    if "auth" in profile["spec"].get("store", {}):
        errors.print(f"put the login of Redis into the Secret {SECRET_NAME}: username, password")
    errors.print(Text(program_of(new, str(output or "profile.yaml"))))
    if told.dropped:
        sys.exit(1)


def _read(path: Path, errors: Console) -> dict[str, Any]:
    documents, problems = parse(SourceFile(str(path), path.read_bytes()))
    root: object = plain(documents[0].root) if len(documents) == 1 else None
    for problem in problems:
        errors.print(problem_text(problem))
    if problems or not isinstance(root, dict):
        if not problems:
            errors.print(Text.assemble(("error: ", "red"), f"{path}: one mapping is wanted"))
        sys.exit(1)
    return root


def _tell(told: ValidationResult, errors: Console) -> None:
    for kind, style in _STYLES.items():
        reports: tuple[FieldReport, ...] = getattr(told, kind)
        for report in reports:
            errors.print(Text.assemble((f"{kind}: ", style), str(report)))


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")

"""The YAML of envoyproxy/ratelimit as `RateLimitPolicy` manifests that decide the same.

Every descriptor with a limit becomes a rule. Where matching ends in a pass, which in the YAML is a descriptor without a
limit, an Allow rule keeps that end: there is no way back to a sibling branch. What has no counterpart is told with its
line; what only answers or metrics show otherwise is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import yaml

from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.model import API_VERSION, RESERVED_DOMAIN
from ratelimit_service.policy.problems import Problem, Severity
from ratelimit_service.policy.quantities import duration_text
from ratelimit_service.policy.rules import MAX_REQUESTS_PER_MS
from ratelimit_service.policy.upstream_model import UpstreamConfig, UpstreamDescriptor

__all__ = ["EnvoyproxyMigration", "migrate_envoyproxy", "write_yaml"]

MOST_RULES: Final = 64
"""Rules of one policy; a domain with more gets several."""

_MOST_ENTRIES: Final = 8
_LONGEST_KEY: Final = 128
_LONGEST_VALUE: Final = 512
_LONGEST_DOMAIN: Final = 253
_LONGEST_NAME: Final = 55
_MOST_REPLACED: Final = 16
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*\Z")
_WORDS: Final = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n"))

Manifest = dict[str, Any]
Line = tuple[UpstreamDescriptor, ...]
"""A descriptor below its parents."""


class EnvoyproxyMigration(msgspec.Struct, frozen=True):
    """What became of some files.

    Attributes:
        manifests: Policies in the order of the files, as plain values.
        problems: Errors: what has no counterpart, or is wrong in the YAML itself (then there are no
            manifests). Warnings: what decides the same and shows otherwise.
    """

    manifests: tuple[Manifest, ...]
    problems: tuple[Problem, ...]

    @property
    def is_complete(self) -> bool:
        """Whether everything that decides has a counterpart."""
        return all(problem.severity is Severity.WARNING for problem in self.problems)

    def to_yaml(self) -> str:
        """The manifests as one YAML text; empty if there are none."""
        return write_yaml(self.manifests)


def migrate_envoyproxy(
    files: Sequence[SourceFile], *, namespace: str = "default", merge_domains: bool = False
) -> EnvoyproxyMigration:
    """Turn the YAML of envoyproxy/ratelimit into manifests.

    Args:
        files: As they were read; manifests of ours among them are passed over.
        namespace: Of the policies.
        merge_domains: One domain may stand in several documents (`--merge-domain-config`).
    """
    objects, problems = decode(files, merge_domains=merge_domains)
    if any(problem.severity is Severity.ERROR for problem in problems):
        return EnvoyproxyMigration((), tuple(problems))
    configs = [each for each in objects if isinstance(each, UpstreamConfig)]
    manifests: list[Manifest] = []
    for config in configs:
        migrated = _Domain(config, namespace, manifests)
        problems += migrated.problems
        manifests += migrated.manifests
    # What was written is read back: a bound that this module does not know shows here, not in the cluster.
    _, wrong = decode([SourceFile("the manifests written", write_yaml(manifests).encode())])
    problems += [each for each in wrong if each.severity is Severity.ERROR]
    return EnvoyproxyMigration(tuple(manifests), tuple(problems))


class _Domain:
    """One document on its way.

    Attributes:
        manifests: Its policies.
        problems: What has no counterpart, and what shows otherwise.
    """

    def __init__(self, config: UpstreamConfig, namespace: str, before: Sequence[Manifest]) -> None:
        self.problems: list[Problem] = []
        self.manifests: list[Manifest] = []
        self._config = config
        self._names: set[str] = set()
        self._passing: set[str] = set()
        if len(config.domain) > _LONGEST_DOMAIN or config.domain == RESERVED_DOMAIN:
            self._tell("domain", f"a domain has at most {_LONGEST_DOMAIN} characters and is not {RESERVED_DOMAIN}")
            return
        lines = [line for line in _lines(config.descriptors, ()) if self._stays(line)]
        kept = _needed(lines)
        rules = [(line, self._rule(line)) for line in kept]
        chunks = [rules[start : start + MOST_RULES] for start in range(0, len(rules), MOST_RULES)]
        taken = {manifest["metadata"]["name"] for manifest in before}
        for number, chunk in enumerate(chunks, start=1):
            self._replace(chunk)
            suffix = "" if len(chunks) == 1 else f"-{number:03d}"
            name = _unique(f"{_slug(config.domain)}{suffix}", taken)
            self.manifests.append(
                {
                    "apiVersion": API_VERSION,
                    "kind": "RateLimitPolicy",
                    "metadata": {"name": name, "namespace": namespace},
                    "spec": {"domain": config.domain, "rules": [rule for _, rule in chunk]},
                }
            )

    def _tell(self, path: str, message: str, severity: Severity = Severity.ERROR) -> None:
        origin = self._config.origin
        self.problems.append(Problem(origin.file, path, message, origin.line_of(path), severity))

    def _stays(self, line: Line) -> bool:
        """Whether a descriptor has a counterpart; tell what has not. Below one that has none nothing is told twice."""
        leaf = line[-1]
        if any(self._chain_problem(part) for part in line[:-1]):
            return False
        problem = self._chain_problem(leaf)
        if not problem and len(line) > _MOST_ENTRIES:
            problem = ("", f"a rule matches at most {_MOST_ENTRIES} entries: left out")
        if problem:
            self._tell(_join(leaf.path, problem[0]), problem[1])
            return False
        problem = _limit_problem(leaf)
        if problem:
            # Its place stays, so that what matches it does not meet another rule instead.
            self._passing.add(leaf.path)
            self._tell(_join(leaf.path, problem[0]), problem[1])
            return True
        for field, message in _shown_otherwise(leaf):
            self._tell(_join(leaf.path, field), message, Severity.WARNING)
        return True

    @staticmethod
    def _chain_problem(part: UpstreamDescriptor) -> tuple[str, str] | None:
        """(field, why) of an entry that no `match` can say."""
        if len(part.key) > _LONGEST_KEY:
            return "key", f"a key has at most {_LONGEST_KEY} characters: left out, with what is below it"
        if len(part.value) > _LONGEST_VALUE:
            return "value", f"a value has at most {_LONGEST_VALUE} characters: left out, with what is below it"
        if "*" in part.value[:-1]:
            return "value", "only a prefix, `text*`, can be matched: left out, with what is below it"
        return None

    def _rule(self, line: Line) -> Manifest:
        leaf = line[-1]
        limit = leaf.rate_limit
        rule: Manifest = {
            "name": _unique(_slug("-".join(f"{part.key}-{part.value}" for part in line)), self._names),
            "match": [_match(part) for part in line],
        }
        if limit is None or limit.unlimited or leaf.path in self._passing:
            rule["action"] = "Allow"
        elif not limit.requests_per_unit:
            rule["action"] = "Deny"
        else:
            assert limit.unit is not None
            window = duration_text(limit.unit.window_us)
            rule["limits"] = [{"requests": limit.requests_per_unit, "window": window, "algorithm": "FixedWindow"}]
        if leaf.shadow_mode:
            rule["mode"] = "Shadow"
        return rule

    def _replace(self, chunk: Sequence[tuple[Line, Manifest]]) -> None:
        """Say of each rule which ones it lifts: the YAML knows them by the names of limits."""
        named: dict[str, list[str]] = {}
        for line, rule in chunk:
            limit = line[-1].rate_limit
            if limit is not None and limit.name:
                named.setdefault(limit.name, []).append(rule["name"])
        for line, rule in chunk:
            limit = line[-1].rate_limit
            if limit is None or not limit.replaces:
                continue
            lifted = [name for each in dict.fromkeys(limit.replaces) for name in named.get(each, ())]
            if lifted:
                rule["replaces"] = lifted[:_MOST_REPLACED]
            for place, each in enumerate(limit.replaces):
                missing = [name for name in named.get(each, ()) if name not in lifted[:_MOST_REPLACED]]
                path = f"{line[-1].path}.rate_limit.replaces[{place}]"
                if missing:
                    self._tell(path, f"a rule replaces at most {_MOST_REPLACED} others: {', '.join(missing)} stay")
                elif each not in named and self._is_named(each):
                    self._tell(path, f"`{each}` is in another policy, for one holds at most {MOST_RULES} rules")
                elif each not in named:
                    self._tell(path, f"no limit has the name `{each}`: nothing to lift", Severity.WARNING)

    def _is_named(self, name: str) -> bool:
        lines = _lines(self._config.descriptors, ())
        return any(line[-1].rate_limit is not None and line[-1].rate_limit.name == name for line in lines)


def _lines(descriptors: Sequence[UpstreamDescriptor], above: Line) -> Iterator[Line]:
    """Every descriptor below its parents, in the order of the file."""
    for descriptor in descriptors:
        line = (*above, descriptor)
        yield line
        yield from _lines(descriptor.descriptors, line)


def _needed(lines: Sequence[Line]) -> list[Line]:
    """Without those that neither limit nor end anything: a longer chain makes their place in the tree already."""
    parents = {line[:depth] for line in _limited(lines) for depth in range(1, len(line))}
    leading = {tuple(part.path for part in line) for line in parents}
    needed = []
    for line in lines:
        is_end = line[-1].rate_limit is None and tuple(part.path for part in line) not in leading
        if line[-1].rate_limit is not None or is_end:
            needed.append(line)
    return needed


def _limited(lines: Sequence[Line]) -> Iterator[Line]:
    return (line for line in lines if line[-1].rate_limit is not None)


def _limit_problem(leaf: UpstreamDescriptor) -> tuple[str, str] | None:
    """(field, why) of a limit that no rule can say."""
    limit = leaf.rate_limit
    if limit is None:
        return None
    if leaf.quota_mode:
        return "quota_mode", "manifests have no quota mode (`serve --quota-mode` is for all): what matches passes"
    if limit.unit is not None and limit.requests_per_unit > MAX_REQUESTS_PER_MS * limit.unit.value * 1_000:
        most = MAX_REQUESTS_PER_MS
        return "rate_limit.requests_per_unit", f"at most {most} per millisecond can be counted: what matches passes"
    return None


def _shown_otherwise(leaf: UpstreamDescriptor) -> Iterator[tuple[str, str]]:
    """(field, why) of what decides the same and shows otherwise."""
    limit = leaf.rate_limit
    for field in ("detailed_metric", "value_to_metric"):
        if getattr(leaf, field):
            yield field, "is for all rules of a policy: `spec.observability.metrics: KeyValue`"
    if leaf.metadata is not None:
        yield "metadata", "a manifest has no metadata of its own: not in responses any more"
    if limit is not None and limit.name:
        yield "rate_limit.name", "responses name the rule instead of this"
    if limit is not None and not limit.unlimited and not limit.requests_per_unit:
        yield "rate_limit.requests_per_unit", "0 is action Deny: responses show no limit"


def _match(part: UpstreamDescriptor) -> Mapping[str, str]:
    if not part.value:
        return {"key": part.key, "type": "Any"}
    if not part.value.endswith("*"):
        return {"key": part.key, "value": part.value}
    prefix = {"key": part.key, "type": "Prefix", "value": part.value[:-1]}
    return {**prefix, "bucket": "Shared"} if part.share_threshold else prefix


def _slug(text: str) -> str:
    return _NOT_IN_NAMES.sub("-", text.lower()).strip("-")[:_LONGEST_NAME].strip("-") or "rule"


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken; it is taken then."""
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found)
    return found


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if field else path


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader of any version of YAML could take for something else."""

    def ignore_aliases(self, data: object) -> bool:
        """No anchors: `kubectl` knows them, our reader refuses them."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_plain = _PLAIN.match(text) is not None and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')


_Dumper.add_representer(str, _represent_text)


def write_yaml(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Plain values as YAML documents; every reader reads the same from it."""
    if not manifests:
        return ""
    return yaml.dump_all(
        manifests, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31, explicit_start=True
    )

"""Decode the YAML of envoyproxy/ratelimit: every key of its format and every error of its loader.

Messages that begin like upstream's (`src/config/config_impl.go`) are upstream's, with our path and line added, so that
what its users know how to search for is found. Beyond them we name the wanted value and the probable misspelling.
Scalars are read as its YAML library does: a number or a boolean where a string is wanted is taken as it was written,
and `yes`/`on` are booleans where one is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ratelimit_service.algorithms.limit import MAX_REQUESTS
from ratelimit_service.policy.documents import ListNode, MapNode, Node, Scalar, kind_of, plain
from ratelimit_service.policy.origin import Origin
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.schema import Report
from ratelimit_service.policy.upstream_model import UpstreamConfig, UpstreamDescriptor, UpstreamRateLimit, UpstreamUnit
from ratelimit_service.policy.wording import hint, listed, shown

_ROOT_KEYS: Final = ("domain", "descriptors")
_DESCRIPTOR_KEYS: Final = (
    "key",
    "value",
    "rate_limit",
    "descriptors",
    "shadow_mode",
    "quota_mode",
    "detailed_metric",
    "value_to_metric",
    "share_threshold",
    "metadata",
)
_LIMIT_KEYS: Final = ("unit", "requests_per_unit", "unlimited", "name", "replaces")
_REPLACES_KEYS: Final = ("name",)
_ALL_KEYS: Final = frozenset((*_ROOT_KEYS, *_DESCRIPTOR_KEYS, *_LIMIT_KEYS))

# YAML 1.1's words for booleans, as go-yaml v2 resolves them.
_TRUE: Final = frozenset(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"))
_FALSE: Final = frozenset(("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"))


def decode_upstream(root: MapNode, origin: Origin, report: Report, warn: Report) -> UpstreamConfig:
    """One document; it is good only if nothing went to `report`. What upstream ignores in silence goes to `warn`."""
    decoder = _Decoder(report, warn)
    decoder.keys(root, _ROOT_KEYS, "")
    domain = decoder.string(root, "domain", "", empty="config file cannot have empty domain")
    descriptors = decoder.descriptors(root, "", f"{domain}.")
    return UpstreamConfig(domain=domain, descriptors=descriptors, origin=origin)


def duplicate_domains(configs: Sequence[UpstreamConfig]) -> list[Problem]:
    """One domain in two documents, which upstream refuses unless domains are merged (DECISIONS 10)."""
    problems: list[Problem] = []
    first: dict[str, Origin] = {}
    for config in configs:
        origin = config.origin
        earlier = first.setdefault(config.domain, origin)
        if earlier is not origin:
            message = f"duplicate domain '{shown(config.domain)}' in config file; it is also at {earlier}"
            problems.append(Problem(origin.file, "domain", message, origin.line_of("domain")))
    return problems


class _Decoder:
    """Reads one document and reports all that is wrong with it."""

    def __init__(self, report: Report, warn: Report) -> None:
        self._report = report
        self._warn = warn

    def keys(self, node: MapNode, known: Sequence[str], path: str) -> None:
        """Tell keys that nobody knows, and warn of known ones in a wrong place, which upstream ignores."""
        for key in node.entries:
            if key in known:
                continue
            if key in _ALL_KEYS:
                self._warn(_join(path, key), f"key '{key}' has no effect here; known here: {listed(known)}")
            else:
                tip = hint(key, known) or f"; known here: {listed(known)}"
                self._report(_join(path, shown(key)), f"config error, unknown key '{shown(key)}'{tip}")

    def string(self, node: MapNode, key: str, path: str, *, empty: str = "") -> str:
        """A string; upstream takes any scalar but a number with a fraction as it was written.

        `empty` is what is said when it is empty or absent; not given: it may be.
        """
        entry = node.entries.get(key)
        if entry is None or (isinstance(entry, Scalar) and entry.value in (None, "")):
            if empty:
                self._report(_join(path, key), empty)
            return ""
        if isinstance(entry, Scalar) and not isinstance(entry.value, float):
            return entry.text
        self._report(_join(path, key), f"error checking config: a string is wanted, not {kind_of(entry)}")
        return ""

    def boolean(self, node: MapNode, key: str, path: str) -> bool:
        """A boolean, in YAML 1.1's many words."""
        entry = node.entries.get(key)
        if entry is None or (isinstance(entry, Scalar) and entry.value is None):
            return False
        if isinstance(entry, Scalar) and entry.text in _TRUE:
            return True
        if not (isinstance(entry, Scalar) and entry.text in _FALSE):
            self._report(_join(path, key), f"error loading config file: true or false is wanted, not {kind_of(entry)}")
        return False

    def items(self, node: MapNode, key: str, path: str) -> Iterator[tuple[MapNode, str]]:
        """The mappings of a list, each with its path."""
        entry = node.entries.get(key)
        if entry is None or (isinstance(entry, Scalar) and entry.value is None):
            return
        if not isinstance(entry, ListNode):
            self._report(_join(path, key), f"error loading config file: a list is wanted, not {kind_of(entry)}")
            return
        for place, item in enumerate(entry.items):
            below = f"{_join(path, key)}[{place}]"
            if isinstance(item, MapNode):
                yield item, below
            else:
                self._report(below, f"config error, yaml file contains list of type other than map: {kind_of(item)}")

    def descriptors(self, node: MapNode, path: str, above: str) -> tuple[UpstreamDescriptor, ...]:
        """One level; `above` is upstream's name of the parent, with a dot."""
        found: list[UpstreamDescriptor] = []
        first: dict[str, str] = {}
        for item, below in self.items(node, "descriptors", path):
            descriptor = self._descriptor(item, below, above)
            composite = _composite(descriptor)
            earlier = first.setdefault(composite, below)
            if earlier != below and descriptor.key:
                name = shown(above + composite)
                self._report(below, f"duplicate descriptor composite key '{name}', already given by {earlier}")
            found.append(descriptor)
        return tuple(found)

    def _descriptor(self, node: MapNode, path: str, above: str) -> UpstreamDescriptor:
        self.keys(node, _DESCRIPTOR_KEYS, path)
        key = self.string(node, "key", path, empty="descriptor has empty key")
        value = self.string(node, "value", path)
        shares = self.boolean(node, "share_threshold", path)
        if shares and "*" not in value:
            composite = shown(f"{key}_{value}" if value else key)
            message = f"share_threshold can only be used with wildcard values, but found key '{composite}'"
            self._report(f"{path}.share_threshold", message)
        return UpstreamDescriptor(
            key=key,
            value=value,
            rate_limit=self._rate_limit(node, path),
            descriptors=self.descriptors(node, path, f"{above}{key}_{value}." if value else f"{above}{key}."),
            shadow_mode=self.boolean(node, "shadow_mode", path),
            quota_mode=self.boolean(node, "quota_mode", path),
            detailed_metric=self.boolean(node, "detailed_metric", path),
            value_to_metric=self.boolean(node, "value_to_metric", path),
            share_threshold=shares,
            metadata=self._metadata(node, path),
            path=path,
        )

    def _metadata(self, node: MapNode, path: str) -> Mapping[str, object] | None:
        entry = node.entries.get("metadata")
        if entry is None or (isinstance(entry, Scalar) and entry.value is None):
            return None
        if isinstance(entry, MapNode):
            return {key: plain(value) for key, value in entry.entries.items()}
        self._report(f"{path}.metadata", f"error loading config file: a mapping is wanted, not {kind_of(entry)}")
        return None

    def _rate_limit(self, node: MapNode, path: str) -> UpstreamRateLimit | None:
        entry = node.entries.get("rate_limit")
        if entry is None or (isinstance(entry, Scalar) and entry.value is None):
            return None
        path = f"{path}.rate_limit"
        if not isinstance(entry, MapNode):
            self._report(path, f"error loading config file: a mapping is wanted, not {kind_of(entry)}")
            return None
        self.keys(entry, _LIMIT_KEYS, path)
        unlimited = self.boolean(entry, "unlimited", path)
        unit = self._unit(entry, path, unlimited=unlimited)
        name = self.string(entry, "name", path)
        return UpstreamRateLimit(
            requests_per_unit=self._requests(entry.entries.get("requests_per_unit"), f"{path}.requests_per_unit"),
            unit=unit,
            unlimited=unlimited,
            name=name,
            replaces=tuple(self._replaces(entry, path, name)),
        )

    def _unit(self, node: MapNode, path: str, *, unlimited: bool) -> UpstreamUnit | None:
        text = self.string(node, "unit", path)
        unit = UpstreamUnit.__members__.get(text.upper())
        if unlimited and unit is not None:
            self._report(f"{path}.unit", "should not specify rate limit unit when unlimited")
            return None
        if not unlimited and unit is None:
            known = [each.lower() for each in UpstreamUnit.__members__]
            message = f"invalid rate limit unit '{shown(text)}'{hint(text, known)}; known: {listed(known)}"
            self._report(f"{path}.unit", message)
        return unit

    def _requests(self, entry: Node | None, path: str) -> int:
        if entry is None:
            return 0
        value = entry.value if isinstance(entry, Scalar) else None
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_REQUESTS:
            return value
        message = f"error loading config file: requests_per_unit is 0 to {MAX_REQUESTS}, not {kind_of(entry)}"
        self._report(path, message)
        return 0

    def _replaces(self, node: MapNode, path: str, own_name: str) -> Iterator[str]:
        for item, below in self.items(node, "replaces", path):
            self.keys(item, _REPLACES_KEYS, below)
            name = self.string(item, "name", below, empty="should not have an empty replaces entry")
            if name and name == own_name:
                self._report(f"{below}.name", "replaces should not contain name of same descriptor")
            yield name


def _composite(descriptor: UpstreamDescriptor) -> str:
    """What upstream tells descriptors of one level apart by."""
    return f"{descriptor.key}_{descriptor.value}" if descriptor.value else descriptor.key


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key

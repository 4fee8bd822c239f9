"""Rules between the fields of a CacheProfile; how they are read: see `rules`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ratelimit_service.policy.profile_model import (
    DEFAULT_CRITICAL_PERCENT,
    DEFAULT_WARNING_PERCENT,
    AllowedNamespaces,
    Compression,
    CompressionAlgorithm,
    L1Spec,
    NamespacesFrom,
    StoreSpec,
    StoreTls,
    StoreType,
    TlsMode,
)
from ratelimit_service.policy.rules import CelRule
from ratelimit_service.policy.schema import Check, Finding, placed, whole
from ratelimit_service.policy.wording import shown

_HOST: Final = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,252})?|\[[0-9A-Fa-f:.]{2,45}\])"
_ENDPOINT: Final = re.compile(_HOST + r":([1-9][0-9]{0,4})\Z")

_LEVELS: Final[Mapping[CompressionAlgorithm, int]] = {CompressionAlgorithm.GZIP: 9, CompressionAlgorithm.ZSTD: 22}
"""Highest level of each algorithm; the lowest is 1."""

_REDIS_ONLY: Final[Mapping[str, str]] = {
    "endpoints": "endpoints",
    "auth": "auth",
    "tls": "tls",
    "timeouts": "timeouts",
    "key_prefix": "keyPrefix",
    "durability": "durability",
    "new_master": "newMaster",
}
"""Fields of a store that Memory has no use for, with their names on the wire."""

CEL_RULES: Final[tuple[CelRule, ...]] = (
    CelRule(
        part=StoreSpec,
        message="type is immutable: a change would reset its counters; make a new profile",
        field=".type",
        cel="self.type == oldSelf.type",
        holds=None,
    ),
    CelRule(
        part=StoreSpec,
        message="a Redis store needs endpoints",
        field=".endpoints",
        cel="self.type == 'Memory' || has(self.endpoints)",
        holds=lambda store: store.type is StoreType.MEMORY or bool(store.endpoints),
        reads=("type",),
    ),
    CelRule(
        part=StoreSpec,
        message="type Redis has one endpoint; several go with RedisSentinel and RedisCluster",
        field=".endpoints",
        cel="self.type != 'Redis' || !has(self.endpoints) || size(self.endpoints) == 1",
        holds=lambda store: store.type is not StoreType.REDIS or len(store.endpoints) <= 1,
        reads=("type", "endpoints"),
    ),
    CelRule(
        part=StoreSpec,
        message="masterName goes with RedisSentinel, which needs it",
        field=".masterName",
        cel="(self.type == 'RedisSentinel') == has(self.masterName)",
        holds=lambda store: (store.type is StoreType.REDIS_SENTINEL) == (store.master_name is not None),
        reads=("type",),
    ),
    CelRule(
        part=StoreSpec,
        message="database goes with Redis and RedisSentinel",
        field=".database",
        cel="!has(self.database) || self.type in ['Redis','RedisSentinel']",
        holds=lambda store: store.database is None or store.type in (StoreType.REDIS, StoreType.REDIS_SENTINEL),
        reads=("type",),
    ),
    CelRule(
        part=L1Spec,
        message="warningPercent is below criticalPercent",
        field=".warningPercent",
        cel=(
            "(has(self.warningPercent) ? self.warningPercent : 70) < "
            "(has(self.criticalPercent) ? self.criticalPercent : 85)"
        ),
        holds=lambda l1: (
            (l1.warning_percent or DEFAULT_WARNING_PERCENT) < (l1.critical_percent or DEFAULT_CRITICAL_PERCENT)
        ),
        reads=("warning_percent", "critical_percent"),
    ),
    CelRule(
        part=Compression,
        message="level goes with Gzip (1 to 9) and Zstd (1 to 22)",
        field=".level",
        cel=(
            "!has(self.level) || (has(self.algorithm) && "
            "(self.algorithm == 'Zstd' || (self.algorithm == 'Gzip' && self.level <= 9)))"
        ),
        holds=lambda packed: packed.level is None or packed.level <= _LEVELS.get(packed.algorithm, 0),
        reads=("algorithm", "level"),
    ),
    CelRule(
        part=Compression,
        message="dictionary goes with Zstd",
        field=".dictionary",
        cel="!has(self.dictionary) || !self.dictionary || (has(self.algorithm) && self.algorithm == 'Zstd')",
        holds=lambda packed: packed.dictionary is not True or packed.algorithm is CompressionAlgorithm.ZSTD,
        reads=("algorithm",),
    ),
    CelRule(
        part=AllowedNamespaces,
        message="selector goes with Selector, which needs it",
        field=".selector",
        cel="(self.from == 'Selector') == has(self.selector)",
        holds=lambda allowed: (allowed.source is NamespacesFrom.SELECTOR) == (allowed.selector is not None),
        reads=("source",),
    ),
)
"""In the order of their evaluation."""


def _endpoints_named(store: StoreSpec) -> Iterator[Finding]:
    for place, endpoint in placed(store.endpoints):
        match = _ENDPOINT.match(endpoint)
        if match is None or int(match[3]) > 65_535:
            yield f".endpoints[{place}]", f"`host:port` is wanted, such as `redis:6379`, not `{shown(endpoint)}`"
    endpoints = list(whole(store.endpoints))
    if len(set(endpoints)) < len(endpoints):
        yield ".endpoints", "endpoints are unique"


def _memory_is_alone(store: StoreSpec) -> Iterator[Finding]:
    if store.type is StoreType.MEMORY:
        for attribute, name in _REDIS_ONLY.items():
            if getattr(store, attribute) not in (None, ()):
                yield f".{name}", f"{name} goes with a Redis store"


def _tls_used(tls: StoreTls) -> Iterator[Finding]:
    if tls.mode is TlsMode.DISABLE:
        refs = ((tls.ca_ref, "caRef"), (tls.client_cert_ref, "clientCertRef"), (tls.server_name, "serverName"))
        for value, name in refs:
            if value is not None:
                yield f".{name}", f"{name} goes with mode Verify or SkipVerify"


CHECKS: Final[Sequence[tuple[type, Check]]] = (
    *((rule.part, rule.check()) for rule in CEL_RULES if rule.holds is not None),
    (StoreSpec, Check(_endpoints_named, ("endpoints",))),
    (StoreSpec, Check(_memory_is_alone, ("type",))),
    (StoreTls, Check(_tls_used, ("mode",))),
)
"""Every rule of a profile for files, by the part that it is about."""

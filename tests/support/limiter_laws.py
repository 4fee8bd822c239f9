"""Policies and requests for the limiter's laws: few keys and small limits, so that every edge is met."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from ratelimit_service.wire.rls.messages import Descriptor, Override, Request
from support.snapshots import policy, snapshot_of

_FIXED = "limits: [{requests: %d, window: %s, algorithm: FixedWindow}]"
_RULES = f"""\
- {{name: one, match: [{{key: one, type: Any}}], {_FIXED % (2, "1s")}}}
- {{name: slide, match: [{{key: slide, type: Any}}], limits: [{{requests: 3, window: 1s}}]}}
- {{name: bucket, match: [{{key: bucket, type: Any}}], limits: [{{requests: 2, window: 1s, algorithm: TokenBucket}}]}}
- {{name: two, match: [{{key: two, type: Any}}],
   limits: [{{requests: 2, window: 1s, algorithm: FixedWindow}}, {{requests: 4, window: 3s, algorithm: FixedWindow}}]}}
- {{name: quiet, match: [{{key: quiet, type: Any}}], mode: Shadow, {_FIXED % (2, "1s")}}}
- {{name: penalty, match: [{{key: penalty, type: Any}}], countDenied: true, {_FIXED % (3, "3s")}}}
- {{name: back, match: [{{key: back, type: Any}}], refunds: true, {_FIXED % (3, "3s")}}}
- {{name: shared, match: [{{key: shared, type: Prefix, value: "", bucket: Shared}}], {_FIXED % (3, "1s")}}}
- {{name: roll, match: [{{key: roll, type: Any}}], {_FIXED % (2, "1s")},
   rollout: {{percent: 50, limits: [{{requests: 3, window: 3s, algorithm: FixedWindow}}]}}}}
- {{name: free, match: [{{key: free, type: Any}}], action: Allow, replaces: [one]}}
- {{name: banned, match: [{{key: banned, type: Any}}, {{key: banned, value: a}}], action: Deny}}
"""
_QUOTAS = """\
domain: quotas
descriptors:
- {key: q1, quota_mode: true, rate_limit: {unit: second, requests_per_unit: 1}}
- {key: q2, quota_mode: true, rate_limit: {unit: second, requests_per_unit: 2}}
- {key: one, rate_limit: {unit: second, requests_per_unit: 3}}
- {key: never, rate_limit: {unit: second, requests_per_unit: 0}}
- {key: free, rate_limit: {unlimited: true}}
"""
SNAPSHOT: Final = snapshot_of(policy(_RULES), _QUOTAS)
"""Two domains: `shop` with a rule of every kind, `quotas` with quotas and other limits."""
OTHER_SNAPSHOT: Final = snapshot_of(policy(_RULES.replace("requests: 2", "requests: 1")), _QUOTAS)
"""The same rules with smaller limits."""

QUOTAS: Final = (b"q1", b"q2")
_SHOP_KEYS: Final = (
    b"one",
    b"slide",
    b"bucket",
    b"two",
    b"quiet",
    b"penalty",
    b"back",
    b"shared",
    b"roll",
    b"free",
    b"x",
)
_QUOTA_KEYS: Final = (*QUOTAS, b"one", b"never", b"free", b"x")
_VALUES: Final = st.sampled_from((b"a", b"b"))
_HITS: Final = st.sampled_from((None, None, 0, 1, 2, 3, 5, 2**64 - 1))
_OVERRIDES: Final = st.none() | st.builds(Override, requests=st.integers(0, 3), unit=st.integers(1, 7))
_BANNED: Final = st.just(Descriptor(((b"banned", b"x"), (b"banned", b"a"))))


def _descriptors(keys: tuple[bytes, ...], *, overrides: bool, negative: bool) -> st.SearchStrategy[Descriptor]:
    entries = st.tuples(st.sampled_from(keys), _VALUES).map(lambda entry: (entry,))
    override = st.one_of(st.none(), st.none(), _OVERRIDES) if overrides else st.none()
    is_negative = st.sampled_from((False, False, True)) if negative else st.just(False)
    return st.builds(Descriptor, entries=entries, override=override, hits=_HITS, is_negative=is_negative)


def requests(*, negative: bool = True, overrides: bool = True) -> st.SearchStrategy[Request]:
    """Requests to both domains, now and then to one that nobody names."""
    shop = _descriptors(_SHOP_KEYS, overrides=overrides, negative=negative)
    quotas = _descriptors(_QUOTA_KEYS, overrides=overrides, negative=negative)
    hits = st.sampled_from((0, 0, 1, 2))
    return st.one_of(
        st.builds(Request, st.just(b"shop"), _lists(st.one_of(shop, shop, shop, _BANNED)), hits),
        st.builds(Request, st.just(b"shop"), shop.map(lambda one: (one,)), hits),
        st.builds(Request, st.just(b"quotas"), _lists(quotas), hits),
        st.builds(Request, st.sampled_from((b"quotas", b"nobody")), _lists(quotas), hits),
    )


def _lists(descriptors: st.SearchStrategy[Descriptor]) -> st.SearchStrategy[tuple[Descriptor, ...]]:
    return st.lists(descriptors, min_size=1, max_size=4).map(tuple)


gaps_us: Final = st.sampled_from((0, 0, 0, 100_000, 500_000, 1_000_000, 3_100_000))
"""Steps of the clock between two calls."""

"""What replicas count under chaos: every failure mode times every law, a rule each, each with a small limit.

Windows are a second long and the demand is more than twice the limit, so that a hit too many shows at once.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ratelimit_service.algorithms.limit import Algorithm, FailureMode, Limit, LimitSettings

MODES: Final = (FailureMode.CLOSED, FailureMode.RESERVED, FailureMode.SHARE)
SLOTS: Final = 3
STANDING_PERCENT: Final = 20
_SECOND_US: Final = 1_000_000
LAWS: Final = {
    "fixed": Limit(Algorithm.FIXED_WINDOW, 20, _SECOND_US, 20),
    "sliding": Limit(Algorithm.SLIDING_WINDOW, 20, _SECOND_US, 20),
    "bucket": Limit(Algorithm.TOKEN_BUCKET, 20, _SECOND_US, 20),
    # Below 20 hits each request is counted by itself.
    "exact": Limit(Algorithm.FIXED_WINDOW, 6, _SECOND_US, 6),
}


class Rule(msgspec.Struct, frozen=True):
    """One rule: a mode and a law."""

    mode: FailureMode
    law: str

    @property
    def name(self) -> str:
        """As in the policy; also the descriptor's key."""
        return f"{self.mode.value.lower()}-{self.law}"

    @property
    def domain(self) -> str:
        """A policy has one failure mode, and a domain of its own."""
        return f"chaos.{self.mode.value.lower()}"

    @property
    def limit(self) -> Limit:
        """Its law."""
        return LAWS[self.law]


RULES: Final = tuple(Rule(mode, law) for mode in MODES for law in LAWS)


def in_force() -> dict[bytes, LimitSettings]:
    """What a store's `apply` takes."""
    return {rule.name.encode(): LimitSettings(rule.limit, rule.domain, rule.name, rule.mode) for rule in RULES}


def policies(new_master: str, durability: str, store: str) -> str:
    """The same as manifests; `store`: type and endpoints in YAML's flow style."""
    documents = [
        f"""\
apiVersion: tidegate.dev/v1alpha1
kind: CacheProfile
metadata: {{name: shared, namespace: chaos}}
spec:
  store: {{{store}, newMaster: {new_master}, durability: {durability}}}
  leases: {{slots: {SLOTS}, standingShare: {STANDING_PERCENT}}}
"""
    ]
    for mode in MODES:
        rules = "".join(
            f"  - {{name: {rule.name}, match: [{{key: {rule.name}, type: Any}}], limits: [{_limit(rule.limit)}]}}\n"
            for rule in RULES
            if rule.mode is mode
        )
        name = mode.value.lower()
        documents.append(
            f"""\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {{name: {name}, namespace: chaos}}
spec:
  domain: chaos.{name}
  cacheProfileRef: {{name: shared}}
  failure: {{onStoreError: {mode.value}}}
  rules:
{rules}"""
        )
    return "---\n".join(documents)


def _limit(limit: Limit) -> str:
    burst = f", burst: {limit.burst}" if limit.algorithm is Algorithm.TOKEN_BUCKET else ""
    return f"{{requests: {limit.requests}, window: 1s, algorithm: {limit.algorithm.value}{burst}}}"

"""Plain integers that hot paths add to; rendered at scrape time (DECISIONS 36)."""

from __future__ import annotations


class RuleCounters:
    """Counts of one (domain, rule) series. The limiter adds; the renderer reads.

    Attributes:
        ok, over, shadow_over, allow, deny: Decisions by result (`tidegate_decisions_total`).
        hits: Hits asked for (`tidegate_hits_total`).
        near_limit_hits: Hits counted above the near-limit ratio (`tidegate_near_limit_hits_total`).
    """

    __slots__ = ("allow", "deny", "domain", "hits", "near_limit_hits", "ok", "over", "rule", "shadow_over")

    def __init__(self, domain: str, rule: str) -> None:
        self.domain = domain
        self.rule = rule
        self.ok = self.over = self.shadow_over = self.allow = self.deny = 0
        self.hits = self.near_limit_hits = 0

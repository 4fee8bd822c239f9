"""What Envoy's local limits make of requests: a model of the filter on the rendered settings, in which no time passes.

Held to a real Envoy by tests on random policies and requests.
Source: envoy/source/extensions/filters/common/local_ratelimit/local_ratelimit_impl.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratelimit_service.policy.match import Entries
from ratelimit_service.policy.render.actions import Config
from ratelimit_service.policy.render.requests import HttpRequest, descriptors


class LocalBuckets:
    """The buckets of one place (a route, a virtual host, a filter) in one Envoy process, full at the start.

    Args:
        settings: As rendered for the place, None: it has no local limit.
    """

    def __init__(self, settings: Config | None) -> None:
        whole: Mapping[str, Any] = settings or {}
        self._limits = whole.get("rate_limits", [])
        self._descriptors = whole.get("descriptors", [])
        self._left: dict[tuple[int, tuple[tuple[bytes, bytes], ...]], int] = {}

    def refuses(self, request: HttpRequest) -> Entries | None:
        """Take a token of every bucket that a request meets, the slowest first; None: all had one.

        Otherwise the descriptor whose bucket was empty; buckets before it have given theirs, those after it have not.
        """
        met = []
        for sent in descriptors(request, self._limits):
            place = self._bucket(sent)
            if place is not None:
                met.append((place, tuple(sent)))
        for place, sent in sorted(met, key=lambda each: self._pace(each[0])):
            left = self._left.get((place, sent), self._descriptors[place]["token_bucket"]["max_tokens"])
            if left < 1:
                return sent
            self._left[place, sent] = left - 1
        return None

    def _bucket(self, sent: Entries) -> int | None:
        """The descriptor of the settings that a sent one meets: one without wildcards before those with."""
        fits = [place for place, each in enumerate(self._descriptors) if _fits(each["entries"], sent)]
        return min(fits, key=lambda place: _wildcards(self._descriptors[place]) > 0, default=None)

    def _pace(self, place: int) -> float:
        """Tokens per second."""
        bucket = self._descriptors[place]["token_bucket"]
        return float(bucket["tokens_per_fill"]) / float(bucket["fill_interval"].removesuffix("s"))


def _wildcards(descriptor: Mapping[str, Any]) -> int:
    return sum("value" not in entry for entry in descriptor["entries"])


def _fits(entries: list[Mapping[str, str]], sent: Entries) -> bool:
    return len(entries) == len(sent) and all(
        entry["key"].encode() == key and ("value" not in entry or entry["value"].encode() == value)
        for entry, (key, value) in zip(entries, sent, strict=True)
    )

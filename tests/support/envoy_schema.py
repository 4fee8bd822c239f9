"""Envoy's newest schema, whose package raises deprecation warnings of its own while it is imported."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor
    from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest

__all__ = ["RateLimitDescriptor", "RateLimitRequest"]

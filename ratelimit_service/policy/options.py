"""How a set of policies is read. Apart from the compiler, which the process that answers requests does without."""

from __future__ import annotations

import msgspec


class CompileOptions(msgspec.Struct, frozen=True):
    """How a set is read.

    Attributes:
        merge_domain_config: One domain of envoyproxy/ratelimit YAML may be written in several documents.
    """

    merge_domain_config: bool = False

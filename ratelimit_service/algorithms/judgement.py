"""What a law says of some hits: the same four facts for every algorithm."""

from __future__ import annotations

from typing import Final

import msgspec

NEVER_US: Final = -1
"""`Judgement.wait_us` of hits that can never fit."""

COUNT_MAX: Final = 2**63 - 1
"""Where counts saturate: far beyond any limit, and still an integer for every store."""


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """The verdict of a law on some hits at some time.

    Attributes:
        over: The hits do not fit; 0 hits: nothing is left.
        remaining: Hits left once these are counted; 0 when over.
        wait_us: Over: until these hits fit if nothing else is counted, `NEVER_US`: never.
            Not over: until the budget is full, 0: it is.
        before: Hits counted before these.
    """

    over: bool
    remaining: int
    wait_us: int
    before: int

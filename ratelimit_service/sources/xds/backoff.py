"""How long to wait before servers are asked again."""

from __future__ import annotations

from typing import Final

LEAST_S: Final = 0.5
MOST_S: Final = 15.0


def wait_s(failures: int, chance: float) -> float:
    """Seconds to wait after so many rounds in vain (0: the stream was good and has ended).

    Args:
        failures: Rounds through all addresses since a stream was last good.
        chance: 0 to 1, so that replicas which lost the same operator do not come back together.

    Returns:
        Half to the whole of 0.5 s, doubled with each failure, at most 15 s.
    """
    whole_s = min(MOST_S, LEAST_S * (1 << min(failures, 16)))
    return whole_s * (0.5 + chance / 2)

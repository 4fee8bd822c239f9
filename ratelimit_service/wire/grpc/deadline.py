"""By when an answer is owed (DECISIONS 29)."""

from __future__ import annotations


def answer_by_us(boot_us: int, remaining_us: int | None, longest_us: int) -> int | None:
    """Return the boot time by which to answer: the lesser of `longest_us` and 0.8 of what the caller still waits.

    The fifth that is left is for the way back; an answer after the caller's own deadline is none.

    Args:
        boot_us: Boot time now.
        remaining_us: What is left of the call's `grpc-timeout`; None: the caller waits for ever.
        longest_us: The service's own bound on its answers.

    Returns:
        A boot time after `boot_us`, or None when the caller's deadline had passed on arrival.
    """
    if remaining_us is None:
        return boot_us + longest_us
    if remaining_us <= 0:
        return None
    return boot_us + min(longest_us, max(1, remaining_us * 4 // 5))

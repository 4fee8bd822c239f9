"""What a worker is told of policies that were read before it began."""

from __future__ import annotations

from ratelimit_service.sources.frames import SetBegins, SetEnds, SetRefused
from ratelimit_service.workers.policies import Policies

BEGINS, ENDS, REFUSED = SetBegins("v", (), 0), SetEnds(), SetRefused((), 0)


def test_the_newest_whole_set_is_told_again() -> None:
    """Not what has come of the next one."""
    policies = Policies()
    given = [policies.take_in(frame, raw) for frame, raw in ((BEGINS, b"a"), (ENDS, b"b"), (BEGINS, b"c"))]

    assert given == [b"", b"ab", b""]
    assert policies.replay() == b"ab"
    assert policies.take_in(ENDS, b"d") == b"cd"
    assert policies.replay() == b"cd"


def test_a_refused_set_is_told_after_the_one_in_force() -> None:
    """So that a new worker shows the problem too; a good set ends that."""
    policies = Policies()
    for frame, raw in ((BEGINS, b"a"), (ENDS, b"b")):
        policies.take_in(frame, raw)
    assert policies.take_in(REFUSED, b"x") == b"x"
    assert policies.replay() == b"abx"
    for frame, raw in ((BEGINS, b"c"), (ENDS, b"d")):
        policies.take_in(frame, raw)

    assert policies.replay() == b"cd"


def test_a_set_that_broke_off_is_forgotten() -> None:
    """Its sender died; the next one begins anew."""
    policies = Policies()
    for frame, raw in ((BEGINS, b"a"), (BEGINS, b"b"), (ENDS, b"c")):
        policies.take_in(frame, raw)

    assert policies.replay() == b"bc"

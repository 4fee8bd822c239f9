"""Who takes the next connection, and what becomes of one that has not arrived."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit_service.workers.messages import MAX_PROBLEMS, Report, decode_report, encode_report
from ratelimit_service.workers.sending import Load, least_loaded


def load(*, connections: int = 0, ready: bool = True, given: int = 0) -> Load:
    """A worker that has begun."""
    made = Load()
    made.given = given
    made.take_in(Report(open=connections, ready=ready, adopted=given))
    return made


def connection() -> socket.socket:
    """One end of a pair whose other end is closed with the test."""
    one, other = socket.socketpair()
    other.close()
    return one


def test_the_one_with_the_fewest_takes_the_next() -> None:
    """Of those that are equal, the one that was given the fewest so far."""
    few, many, fresh = load(connections=1, given=9), load(connections=2, given=1), load(connections=1, given=2)

    assert least_loaded([few, many]) is few
    assert least_loaded([few, many, fresh]) is fresh


def test_who_is_not_ready_comes_after_all_that_are() -> None:
    """But before nobody: one that drains still answers."""
    draining, busy = load(ready=False), load(connections=50)

    assert least_loaded([draining, busy]) is busy
    assert least_loaded([draining]) is draining


def test_who_has_not_begun_or_refuses_to_takes_none() -> None:
    """A connection waits rather than be lost with it."""
    refusing = Load()
    refusing.take_in(Report(subject="policies", problems=("bad",)))

    assert least_loaded([Load(), refusing]) is None


def test_who_has_not_taken_what_it_was_given_is_passed_over() -> None:
    """It may be stopped: another one with more connections is the better choice."""
    stopped, other = load(), load(connections=7)
    stopped.give(connection())
    chosen = least_loaded([stopped, other])
    for copy in stopped.reclaim():
        copy.close()

    assert chosen is other


@given(st.lists(st.booleans(), max_size=12))
def test_every_connection_is_taken_or_given_back(steps: list[bool]) -> None:
    """True: given; False: one more is reported as taken. Nothing is in both places, nothing in none."""
    made, adopted, copies = load(), 0, list[socket.socket]()
    for is_given in steps:
        if is_given:
            copies.append(connection())
            made.give(copies[-1])
        elif adopted < made.given:
            adopted += 1
            made.take_in(Report(ready=True, open=adopted, adopted=adopted))
    assert made.connections == made.given
    left = made.reclaim()
    closed = [copy.fileno() < 0 for copy in copies]
    for copy in left:
        copy.close()

    assert left == copies[adopted:]
    assert closed == [True] * adopted + [False] * (len(copies) - adopted)
    assert not made.under_way


def test_a_report_stays_within_a_message() -> None:
    """However many problems there are, and however long."""
    report = Report(adopted=3, open=2, ready=True, problems=("x" * 10_000,) * 10_000)
    read = decode_report(encode_report(report))

    assert len(encode_report(report)) < 65_536
    assert (read.adopted, read.open, len(read.problems)) == (3, 2, MAX_PROBLEMS)


@pytest.mark.parametrize("report", [Report(), Report(subject="TLS files", problems=("no key",), reason="refused")])
def test_a_report_arrives_as_it_was(report: Report) -> None:
    """Field by field."""
    assert decode_report(encode_report(report)) == report

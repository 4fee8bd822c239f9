"""How `tidegate counters` and `tidegate reset` show what the admin pages say, and what goes wrong."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner, Result

from ratelimit_service.cli.main import main
from ratelimit_service.limiter.resetting import ResetAnswer, ResetCounter
from ratelimit_service.quota.store import Usage
from support.admin_views import ShownService, serving


@contextmanager
def served(view: ShownService) -> Iterator[str]:
    """The address of admin pages that show `view`, on a loop in a thread of their own."""
    ready, loop, addresses = threading.Event(), asyncio.new_event_loop(), list[str]()
    ended = asyncio.Event()

    async def run() -> None:
        async with serving(view) as server:
            addresses.append(server.addresses[0])
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(20)
        loop.close()


def said(command: str, *arguments: str, view: ShownService | None = None) -> Result:
    """What a command prints; wide, so that no cell is cut."""
    with served(view or ShownService()) as address:
        return CliRunner(env={"COLUMNS": "160"}).invoke(main, [command, "--admin", address, *arguments])


def cells(done: Result) -> list[list[str]]:
    """The tables' rows, headers included."""
    rows = [line for line in done.output.splitlines() if line.startswith(("┃", "│"))]
    return [[cell.strip() for cell in row.strip("┃│").replace("┃", "│").split("│")] for row in rows]


def test_counters_show_limits_and_their_greatest_keys() -> None:
    """Sums first; counts without a limit have neither rule nor remaining."""
    done = said("counters", "--domain", "shop", "--top", "1")

    assert done.exit_code == 0
    assert cells(done) == [
        ["rule", "limit", "keys", "used", "exhausted"],
        ["user", "5 per 1m, FixedWindow", "4", "15", "2"],
        ["-", "-", "2", "2", "0"],
        ["rule", "key", "used", "remaining", "full again in"],
        ["user", "eve", "5", "0", "never"],
        ["-", "shop_user_bob_60", "1", "-", "0.0 s"],
    ]


class Many(ShownService):
    """A full page, and then a domain that never ends."""

    async def usage(self, domain: str, page: int) -> list[Usage]:
        return [Usage(b"id-user", b"", used=1, remaining=4, wait_us=1_500_000)] * (100 if page == 2 else 60_000)


class Idle(ShownService):
    """Counts nothing."""

    async def usage(self, domain: str, page: int) -> list[Usage]:
        return []


def test_keys_are_listed_a_page_at_a_time() -> None:
    """A full page says how to get the next; a key without values is the one count for all."""
    done = said("counters", "--domain", "shop", "--keys", "3", view=Many())

    assert cells(done)[1] == ["user", "(one for all)", "1", "4", "1.5 s"]
    assert done.output.endswith("the next hundred: --keys 4\n")


def test_a_part_of_the_counters_is_said_to_be_one() -> None:
    """A sum over some of them would mislead."""
    assert "only the first 100000 counters were looked at" in said("counters", "--domain", "shop", view=Many()).output


@pytest.mark.parametrize("arguments", [(), ("--keys", "1")])
def test_no_counters_is_said_in_words(arguments: tuple[str, ...]) -> None:
    """An empty table would leave open whether something went wrong."""
    done = said("counters", "--domain", "shop", *arguments, view=Idle())

    assert done.exit_code == 0
    assert done.output.startswith("no live counters in domain shop")


def test_a_reset_shows_each_descriptor() -> None:
    """Rule, key and what was there."""
    done = said("reset", "--domain", "shop", "user=bob", "--descriptor", "user=bob")

    assert done.exit_code == 0
    assert cells(done) == [["descriptor", "rule", "key", "now"], *[["user=bob", "user", "bob", "begun anew"]] * 2]


@pytest.mark.parametrize(
    ("counter", "shown", "code"),
    [
        (ResetCounter(("user=bob",), "user", ("bob",), False, ""), "nothing was counted", 0),
        (ResetCounter(("user=bob",), "user", ("bob",), None, ""), "the store did not answer", 1),
        (ResetCounter(("a=b",), "", (), False, "no rule: passes"), "nothing is counted: no rule: passes", 1),
    ],
)
def test_what_was_not_reset_is_no_success(counter: ResetCounter, shown: str, code: int) -> None:
    """By words, and by the exit code where there is something to do."""
    view = ShownService()
    view.begun_anew = ResetAnswer("shop", counters=(counter,))
    done = said("reset", "--domain", "shop", "user=bob", view=view)

    assert shown in done.output
    assert done.exit_code == code


def test_values_of_any_bytes_arrive() -> None:
    """Escapes of the query carry them."""
    view = ShownService()
    said("reset", "--domain", "shop", "user=bo\udcffb &=+%", view=view)

    assert view.asked[0].descriptors[0].entries == ((b"user", b"bo\xffb &=+%"),)


def test_refusals_are_told_as_the_page_says() -> None:
    """An unknown domain, and a request that cannot be counted."""
    view = ShownService()
    view.begun_anew = ResetAnswer("shop", "domain: must not be empty")

    assert "404: no domain 'nowhere' is in force" in said("counters", "--domain", "nowhere").output
    assert "domain: must not be empty" in said("reset", "--domain", "shop", "a=b", view=view).output


def answering(body: bytes) -> Iterator[str]:
    """A server of something else: it answers every request with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(body)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(20)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is none of our pages"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 13\r\n\r\nno such page;", "has no page /counters"),
        (b"+PONG\r\n", "no answer from the admin pages"),
    ],
)
def test_another_program_is_recognised(body: bytes, shown: str) -> None:
    """It may be any program, or an older release."""
    for address in answering(body):
        done = CliRunner().invoke(main, ["counters", "--domain", "d", "--admin", address])

    assert done.exit_code == 1
    assert shown in done.output


def test_nobody_there_is_told_with_what_may_help() -> None:
    """The address, the reason, the flag."""
    done = CliRunner().invoke(main, ["counters", "--domain", "d", "--admin", "127.0.0.1:1"])

    assert done.exit_code == 1
    assert "no answer from the admin pages at 127.0.0.1:1: " in done.output
    assert "--admin HOST:PORT" in done.output


@pytest.mark.parametrize("target", ["nonsense", "unix:/tmp/x"])
def test_what_is_no_address_is_a_usage_error(target: str) -> None:
    """Before anything is asked."""
    done = CliRunner().invoke(main, ["counters", "--domain", "d", "--admin", target])

    assert done.exit_code == 2
    assert "HOST:PORT" in done.output

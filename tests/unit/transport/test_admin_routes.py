"""Who may see which page, decided without a socket."""

from __future__ import annotations

import pytest

from ratelimit_service.settings import LOOPBACK_ONLY
from ratelimit_service.transport.admin_pages import ROUTES
from ratelimit_service.transport.admin_routes import Page, Route, Routes, is_local_peer, split_target
from ratelimit_service.transport.rlconfig import window_text


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (("127.0.0.1", 5), True),
        (("127.8.8.8", 5), True),
        (("::1", 5, 0, 0), True),
        (("::ffff:127.0.0.1", 5, 0, 0), True),
        (("", ""), False),
        ("", True),
        (b"\0abstract", True),
        (("127.0.0.6", 5), False),
        (("::ffff:127.0.0.6", 5, 0, 0), False),
        (("10.0.0.1", 5), False),
        (("fe80::1%eth0", 5, 0, 2), False),
        (("localhost", 5), False),
        ((), False),
        (None, False),
    ],
)
def test_only_this_machine_is_local(peer, expected):
    """Loopback and Unix sockets are; the address of a sidecar's inbound traffic is not."""
    assert is_local_peer(peer) is expected


@pytest.mark.parametrize("name", [b"forwarded", b"x-forwarded-for"])
def test_a_request_passed_on_by_a_proxy_is_not_local(name):
    """Whatever address the proxy has."""
    assert not is_local_peer(("127.0.0.1", 5), [(b"host", b"x"), (name, b"1.2.3.4")])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ((b"origin", b"https://elsewhere.example"), False),
        ((b"sec-fetch-site", b"cross-site"), False),
        ((b"sec-fetch-site", b"same-site"), False),
        ((b"sec-fetch-site", b"same-origin"), True),
        ((b"sec-fetch-site", b"none"), True),
        ((b"user-agent", b"curl/8"), True),
    ],
)
def test_a_web_page_of_somebody_else_is_not_this_machine(header, expected):
    """A page that a browser here shows could POST to /reset; what a person types, or follows from /, may pass."""
    assert is_local_peer(("127.0.0.1", 5), [header]) is expected


def test_guards_are_pages_that_settings_know():
    """`--admin-expose` takes exactly the names that guard a page."""
    assert {route.guard for route in ROUTES} - {""} == set(LOOPBACK_ONLY)


@pytest.mark.parametrize("path", [route.path for route in ROUTES if route.guard])
def test_a_guarded_page_is_hidden_from_other_machines(path):
    """403 even for a method that it does not take, unless it is exposed."""
    guard = next(route.guard for route in ROUTES if route.path == path)
    exposed = Routes(ROUTES, frozenset({guard}))

    found = [
        Routes(ROUTES).find("BREW", path, is_local=False),
        exposed.find("BREW", path, is_local=False),
        Routes(ROUTES).find("BREW", path, is_local=True),
    ]

    assert [page.status for page in found if isinstance(page, Page)] == [403, 405, 405]


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/healthcheck", "/metrics"])
def test_probes_and_metrics_are_open(path):
    """The kubelet and Prometheus come from elsewhere."""
    found = Routes(ROUTES).find("GET", path, is_local=False)

    assert isinstance(found, Route)
    assert found.path == path


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a", ("/a", ())),
        ("/a?", ("/a", ())),
        ("/a?b", ("/a", (("b", b""),))),
        ("/a?b=c=d&&b=%ff%zz#x", ("/a", (("b", b"c=d"), ("b", b"\xff%zz")))),
        ("/a?b+c=d+e%2B", ("/a", (("b c", b"d e+"),))),
        ("http://host", ("/", ())),
        ("https://host/x?y=z", ("/x", (("y", b"z"),))),
    ],
)
def test_a_target_is_split_into_path_and_fields(target, expected):
    """Values are bytes; broken escapes stay."""
    assert split_target(target) == expected


@pytest.mark.parametrize(
    ("window_us", "expected"),
    [(1, "1us"), (1_000, "1ms"), (1_001, "1001us"), (1_000_000, "1s"), (90_000_000, "90s"), (3_600_000_000, "1h")],
)
def test_a_window_shows_the_greatest_unit_that_divides_it(window_us, expected):
    """Never rounded."""
    assert window_text(window_us) == expected

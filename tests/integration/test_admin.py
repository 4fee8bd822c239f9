"""The admin pages over real sockets: what each answers."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
import uvloop

from ratelimit_service.limiter.resetting import ResetAnswer, ResetCounter
from ratelimit_service.quota.health import MemoryLevel, SharedLevel, all_health, store_health
from ratelimit_service.quota.store import Usage
from ratelimit_service.transport.admin import AdminLimits
from ratelimit_service.transport.admin_service import Readiness
from ratelimit_service.wire.grpc.status import GrpcCode, GrpcError
from ratelimit_service.wire.rls.messages import Status, Verdict
from support.admin_views import UNAVAILABLE, ShownService, ask

REQUEST = b'{"domain":"shop","descriptors":[{"entries":[{"key":"user","value":"bob"}]}]}'
QUICK = AdminLimits(idle_s=0.2, header_s=0.1, body_s=0.1, answer_s=0.2, linger_s=0.1)


@pytest.fixture(
    params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"], autouse=True
)
def _loop(request):
    """Every test runs on both loops: their transports differ in small ways."""
    asyncio.set_event_loop_policy(request.param())
    yield
    asyncio.set_event_loop_policy(None)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/livez", (200, b"ok\n")),
        ("/readyz", (200, b"ok\n")),
        ("/healthcheck", (200, b"OK")),
        ("/metrics", (200, b"a 1\nb 2\n")),
        ("http://admin:8080/livez", (200, b"ok\n")),
        ("/explain?domain=shop&entry=user=bob", (200, b'{"why":"so"}')),
        ("/explain?domain=shop", (400, b"entry: missing, write entry=KEY=VALUE\n")),
        ("/explain?entry=user=bob", (400, b"domain: missing\n")),
        ("/explain?domain=a&domain=b&entry=user=bob", (400, b"domain: given twice\n")),
        ("/explain?domain=a&entry=u=b&hits=-1", (400, b"hits: not a whole number from 0 to 4294967295\n")),
        ("/counters?domain=nowhere", (404, b"no domain 'nowhere' is in force\n")),
        ("/counters", (400, b"domain: missing\n")),
        ("/counters?domain=shop&page=x", (400, b"page: not a whole number from 0 to 1000000\n")),
        ("/counters?domain=shop&page=1000001", (400, b"page: not a whole number from 0 to 1000000\n")),
        ("/counters?domain=shop&top=1001", (400, b"top: not a whole number from 0 to 1000\n")),
        ("/counters?domain=shop&by=rule", (400, b"by: neither key nor limit\n")),
        ("/nowhere", (404, b"no such page; / lists them\n")),
        ("/livez/", (404, b"no such page; / lists them\n")),
        ("*", (404, b"no such page; / lists them\n")),
    ],
)
def test_each_page_answers_exactly(target, expected):
    """Status and body of every page, good and bad."""
    assert ask(target).brief == expected


def test_the_health_of_stores_is_503_only_when_keys_find_no_room():
    """What the failure mode answers for is served, so nobody shall take the service out for it."""
    view = ShownService()
    well = ask("/health/cache", view=view)
    view.health = all_health([("", store_health(l2=SharedLevel(("away",))))])
    ill = ask("/health/cache", view=view)
    view.health = all_health([("", store_health(l1=MemoryLevel(10, 10, 1, 1, full=True)))])
    full = ask("/health/cache", view=view)

    assert (well.status, ill.status, full.status) == (200, 200, 503)
    assert json.loads(well.body)["profiles"]["default"]["l1"]["max_keys"] == 10
    assert json.loads(ill.body)["status"] == "degraded"
    assert json.loads(full.body)["profiles"]["default"]["pressure"] == "critical"


def test_the_index_lists_every_page():
    """`/` names the pages, one a line."""
    body = ask("/").body.decode()

    assert [line.split()[0] for line in body.splitlines()][1:4] == ["/livez", "/readyz", "/healthcheck"]


def test_a_refused_reload_keeps_readyz_200_and_names_the_problem():
    """Degraded is not unready (DECISIONS 34)."""
    view = ShownService()
    view.state = Readiness(ready=True, problems=("shop.yaml:3: spec.domain: missing",))

    assert ask("/readyz", view=view).brief == (200, b"ok; degraded\nshop.yaml:3: spec.domain: missing\n")


def test_readyz_lists_at_most_fifty_problems():
    """The rest are counted."""
    view = ShownService()
    view.state = Readiness(ready=True, problems=tuple(f"p{n}" for n in range(53)))

    assert ask("/readyz", view=view).body.endswith(b"p49\nand 3 more\n")


@pytest.mark.parametrize("path", ["/readyz", "/healthcheck"])
def test_a_draining_service_is_not_ready(path):
    """Both probes answer 503 with the reason."""
    view = ShownService()
    view.state = Readiness(ready=False, reason="draining", problems=("one",))

    assert ask(path, view=view).brief == (503, b"not ready: draining\none\n")


@pytest.mark.parametrize("target", ["/rlconfig", "/explain?domain=a&entry=b=c", "/counters?domain=shop"])
def test_pages_of_policies_answer_503_without_a_configuration(target):
    """There is nothing to show yet."""
    view = ShownService()
    view.in_force = None

    assert ask(target, view=view).brief == (503, b"no configuration is in force\n")


def test_rlconfig_shows_each_limit_on_a_line():
    """Its first half is upstream's."""
    expected = (
        "shop.user: unit=MINUTE requests_per_unit=5, algorithm: FixedWindow, window: 1m, "
        "shadow_mode: false, quota_mode: false # shop.yaml:3\n"
        "shop.plan: unit=UNKNOWN requests_per_unit=10, algorithm: TokenBucket, window: 1500ms, burst: 20, "
        "shadow_mode: true, quota_mode: false, count_denied: true\n"
        "shop.plan: unit=MINUTE requests_per_unit=5, algorithm: FixedWindow, window: 1m, "
        "shadow_mode: true, quota_mode: false, count_denied: true, rollout: 10%\n"
        "shop.probe: unlimited: true\n"
        "shop.bot: deny: true\n"
    )

    assert ask("/rlconfig").body.decode() == expected


def test_counters_by_limit_are_sums_with_the_keys_that_use_the_most():
    """Over all pages; counts without a limit in force are those of compat mode, and stand apart."""
    told = json.loads(ask("/counters?domain=shop&by=limit&top=2").body)

    assert (told["domain"], told["whole"]) == ("shop", True)
    (user, other) = told["limits"]
    assert {name: user[name] for name in ("rule", "requests", "window_us", "keys", "used", "exhausted")} == {
        "rule": "user", "requests": 5, "window_us": 60_000_000, "keys": 4, "used": 15, "exhausted": 2,
    }  # fmt: skip
    assert [(row["key"], row["used"]) for row in user["top"]] == [(["eve"], 5), (["eve"], 5)]
    assert (other["rule"], other["keys"], other["used"], other["exhausted"]) == (None, 2, 2, 0)


class Endless(ShownService):
    """Has more counters than anybody wants to see."""

    async def usage(self, domain, page):
        return [Usage(b"id-user", b"\x01x", used=1, remaining=4, wait_us=0)] * 30_000


def test_counters_of_a_domain_that_is_too_large_are_told_as_a_part():
    """A summary ends; it says that it is none of the whole."""
    told = json.loads(ask("/counters?domain=shop&by=limit&top=0", view=Endless()).body)

    assert (told["whole"], told["limits"][0]["keys"], told["limits"][0]["top"]) == (False, 120_000, [])


@pytest.mark.parametrize("target", ["/counters?domain=shop", "/counters?domain=shop&by=limit"])
def test_counters_of_a_lost_store_are_503(target):
    """No counters at all would look like no use."""
    view = ShownService()
    view.is_lost = True

    assert ask(target, view=view).status == 503


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (ResetAnswer("shop", counters=(ResetCounter(("user=bob",), "user", ("bob",), False, ""),)), 200),
        (ResetAnswer("shop", counters=(ResetCounter(("user=bob",), "user", ("bob",), None, ""),)), 503),
        (ResetAnswer("shop", counters=(ResetCounter(("a=b",), "", (), False, "no rule: passes"),)), 404),
        (ResetAnswer("nowhere", "no policy names domain 'nowhere'"), 400),
    ],
)
def test_a_reset_tells_what_became_of_it(answer, status):
    """Not known is no success, and neither is a descriptor that nothing is counted for."""
    view = ShownService()
    view.begun_anew = answer
    told = ask("/reset?domain=shop&entry=user=bob", method="POST", view=view)

    assert told.status == status
    assert msgspec.json.decode(told.body, type=ResetAnswer) == answer
    assert view.asked[0].descriptors[0].entries == ((b"user", b"bob"),)


def test_a_reset_takes_what_json_takes():
    """A body names several descriptors; one that cannot be read resets nothing."""
    view = ShownService()
    body = b'{"domain":"shop","descriptors":[{"entries":[{"key":"a","value":"b"}]},{"entries":[{"key":"c"}]}]}'

    assert ask("/reset", method="POST", body=body, view=view).status == 200
    assert len(view.asked[0].descriptors) == 2
    assert ask("/reset?domain=shop", method="POST", view=view).brief == (
        400, b"entry: missing, write entry=KEY=VALUE\n",
    )  # fmt: skip
    assert ask("/reset?domain=shop&entry=a=b").status == 405
    view.in_force = None
    assert ask("/reset?domain=shop&entry=a=b", method="POST", view=view).status == 503


def test_counters_show_keys_as_text_and_leave_out_rules_that_are_gone():
    """Bytes that are no UTF-8 show as escapes; never is null, and so is what compat mode does not know."""
    rows = json.loads(ask("/counters?domain=shop&page=1").body)

    assert rows == [
        {
            "rule": "user",
            "algorithm": "FixedWindow",
            "requests": 5,
            "key": ["bo\\xffb", "x"],
            "used": 3,
            "remaining": 3,
            "wait_us": 7,
        },
        {
            "rule": "user",
            "algorithm": "FixedWindow",
            "requests": 5,
            "key": ["eve"],
            "used": 5,
            "remaining": 0,
            "wait_us": None,
        },
        {
            "rule": None,
            "algorithm": None,
            "requests": None,
            "key": ["shop_user_bob_60"],
            "used": 1,
            "remaining": None,
            "wait_us": 9,
        },
    ]


def test_debug_config_names_the_version():
    """What is in force, and how much."""
    assert json.loads(ask("/debug/config").body) == {
        "program": "1.2.3", "version": "0123456789abcdef", "domains": 1, "rules": 4,
        "ready": True, "reason": "", "problems": [],
    }  # fmt: skip


def test_debug_config_answers_without_a_configuration():
    """It is for finding out why there is none."""
    view = ShownService()
    view.in_force = None

    assert json.loads(ask("/debug/config", view=view).body)["version"] is None


def test_explain_takes_any_bytes_by_percent_escapes():
    """JSON cannot carry them, a query string can."""
    view = ShownService()
    ask("/explain?domain=shop&entry=user=bo%ffb%3D+x&entry=bare&hits=3", view=view)

    assert view.asked[0].descriptors[0].entries == ((b"user", b"bo\xffb= x"), (b"bare", b""))
    assert view.asked[0].hits_addend == 3


def test_explain_takes_what_json_takes():
    """POST sends several descriptors."""
    assert ask("/explain", method="POST", body=REQUEST).brief == (200, b'{"why":"so"}')
    assert ask("/explain", method="POST", body=b"[]").brief == (400, b"request: not an object\n")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Verdict(over=False, statuses=()), (200, b'{"overallCode":"OK"}')),
        (
            Verdict(over=True, statuses=(Status(over=True),)),
            (429, b'{"overallCode":"OVER_LIMIT","statuses":[{"code":"OVER_LIMIT"}]}'),
        ),
        (UNAVAILABLE, (400, b"UNAVAILABLE: no configuration\n")),
        (GrpcError(GrpcCode.UNKNOWN, "store lost"), (400, b"UNKNOWN: store lost\n")),
        (GrpcError(GrpcCode.INTERNAL, "bug"), (500, b"INTERNAL: bug\n")),
    ],
)
def test_json_answers_with_upstreams_statuses(answer, expected):
    """OK 200, OVER_LIMIT 429, errors of the service 400, our own bugs 500."""
    view = ShownService()
    view.answer = answer

    assert ask("/json", method="POST", body=REQUEST, view=view).brief == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", b"no JSON: Expecting value at character 0\n"),
        (b"\xff", b"byte 0 is no UTF-8\n"),
        (b'{"domain":"a","domain":"b"}', b"field 'domain' twice in one object\n"),
        (b'{"\\ud800":1}', b"request: no field '\\ud800'; it has domain, descriptors, hitsAddend\n"),
        (b"[" * 200_000, b"no JSON: nested too deeply\n"),
    ],
)
def test_json_refuses_what_is_no_request(body, expected):
    """400 with what is wrong."""
    assert ask("/json", method="POST", body=body).brief == (400, expected)


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [("POST", "/livez", "GET, HEAD"), ("GET", "/json", "POST"), ("DELETE", "/explain", "GET, HEAD, POST")],
)
def test_a_wrong_method_is_told_the_right_ones(method, target, allow):
    """405 carries Allow."""
    answer = ask(target, method=method)

    assert answer.brief == (405, f"{target} takes {allow}\n".encode())
    assert answer.fields["allow"] == allow


@pytest.mark.parametrize(("path", "framing"), [("/livez", "content-length"), ("/metrics", "transfer-encoding")])
def test_head_answers_like_get_without_the_body(path, framing):
    """The header fields are those of GET."""
    answer = ask(path, method="HEAD")

    assert answer.brief == (200, b"")
    assert framing in answer.fields


def test_metrics_carry_the_text_formats_type_and_come_in_chunks():
    """Prometheus needs the version."""
    fields = ask("/metrics").fields

    assert fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert fields["transfer-encoding"] == "chunked"
    assert {"date", "x-content-type-options"} <= set(fields)


def test_a_forwarded_request_is_not_local():
    """A proxy on this machine does not open pages to everybody; --admin-expose does."""
    forwarded = "X-Forwarded-For: 203.0.113.9\r\n"

    assert ask("/rlconfig", extra=forwarded).brief == (
        403, b"/rlconfig answers this machine only; --admin-expose /rlconfig opens it\n",
    )  # fmt: skip
    assert ask("/rlconfig", extra=forwarded, exposed=frozenset({"/rlconfig"})).status == 200

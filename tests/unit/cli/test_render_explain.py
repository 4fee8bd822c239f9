"""`tidegate render envoy` and `tidegate explain --request`: from files to Envoy's configuration, and to verdicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from ratelimit_service.cli.main import main
from support.golden_sets import FOLDER


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env={"COLUMNS": "200"})


def policy_set(name: str) -> str:
    return str(FOLDER / "sets" / f"{name}.yaml")


def explain(name: str, line: str, *more: str) -> str:
    """What explain prints of a request that is good."""
    done = run("explain", "--policies", policy_set(name), "--request", line, *more)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_service_is_where_the_option_says() -> None:
    """A name is looked up by DNS, an address is not."""
    for text, kind, host in (("tidegate.svc:81", "STRICT_DNS", "tidegate.svc"), ("[::1]:81", "STATIC", "::1")):
        done = run("render", "envoy", policy_set("header-any"), "--service", text, "--format", "json")
        (cluster,) = json.loads(done.output)["clusters"]
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]

        assert cluster["type"] == kind
        assert endpoint["address"]["socket_address"] == {"address": host, "port_value": 81}


@pytest.mark.parametrize("text", ["nowhere", ":81", "a:0", "a:65536", "a:x"])
def test_an_address_that_is_none_is_told(text: str) -> None:
    """Exit code 2."""
    done = run("render", "envoy", policy_set("header-any"), "--service", text)

    assert done.exit_code == 2
    assert "is not HOST:PORT" in done.output


def test_a_domain_is_chosen_where_there_are_several(tmp_path: Path) -> None:
    """The names are listed; so they are for one that is not there."""
    text = Path(policy_set("header-any")).read_text(encoding="utf-8")
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    other = text.replace("shop.api", "shop.other").replace("name: a,", "name: b,")
    (tmp_path / "b.yaml").write_text(other, encoding="utf-8")
    unclear, wrong = run("render", "envoy", str(tmp_path)), run("render", "envoy", str(tmp_path), "--domain", "x")

    assert (unclear.exit_code, wrong.exit_code) == (1, 1)
    assert "choose one with --domain; the policies name shop.api, shop.other" in unclear.output
    assert "no policy names domain x; the policies name shop.api, shop.other" in wrong.output
    assert "domain: shop.other" in run("render", "envoy", str(tmp_path), "--domain", "shop.other").output


def test_targets_need_a_gateway() -> None:
    """Which one is said, and which there are."""
    bare = run("render", "envoy", policy_set("gateway"))
    wrong = run("render", "envoy", policy_set("gateway"), "--gateway", "shop/x")

    assert "name the Gateway with --gateway NAMESPACE/NAME" in bare.output
    assert "there is no Gateway shop/x; there is shop/edge" in wrong.output


def test_a_rule_without_a_source_cannot_be_rendered(tmp_path: Path) -> None:
    """Every entry that lacks one is named, and nothing is printed."""
    text = Path(policy_set("two-entries")).read_text(encoding="utf-8")
    file = tmp_path / "a.yaml"
    file.write_text(text.replace(", from: {type: Header, name: x-user}", ""), encoding="utf-8")
    done = run("render", "envoy", str(file))

    assert done.exit_code == 1
    assert "spec.rules[0].match[0].from: is needed to render: where does Envoy take `user`?" in done.output
    assert "clusters" not in done.output


def test_policies_that_are_refused_or_cannot_be_read_are_told(tmp_path: Path) -> None:
    """Exit code 1."""
    done = run("render", "envoy", str(tmp_path / "gone.yaml"))

    assert done.exit_code == 1
    assert "cannot be read: No such file or directory" in done.output


def test_a_request_is_explained_from_its_headers_to_its_verdicts() -> None:
    """The descriptor that Envoy would send, the rule, and how many requests pass."""
    output = explain(
        "header-one-sequence", "GET /x?y", "--header", "x-plan=free", "--header", "x-user=ann", "--repeat", "3"
    )

    assert "plan=free user=ann" in output
    assert "rule `others` stands at the last entry" in output
    assert output.splitlines()[-2:] == ["request 1: OK", "requests 2–3: OVER_LIMIT, answered 429"]


def test_a_request_that_lacks_the_source_is_not_limited() -> None:
    """Envoy sends nothing."""
    assert "Envoy sends no descriptor: nothing is limited." in explain("header-any", "GET /")


@pytest.mark.parametrize(
    ("name", "line", "more", "sent"),
    [
        ("path", "GET /login?a=1", (), "path=/login"),
        ("query-parameter", "GET /?x&key=a%20b&key=c#key=d", (), "api_key=a b"),
        ("method", "POST /", (), "method=POST"),
        ("address", "GET /", ("--remote", "203.0.113.9"), "masked_remote_address=203.0.113.9/32"),
        ("address", "GET /", ("--remote", "2001:db8::1"), "masked_remote_address=2001:db8::/64"),
        ("address-whole", "GET /", ("--remote", "2001:db8::1"), "remote_address=2001:db8::1"),
        ("metadata", "GET /", ("--metadata", "e2e.tenant/name=acme"), "tenant=acme"),
        ("header-names", "GET /", ("--header", "Host=a.example"), "host=a.example"),
        ("static", "GET /", (), "area=shop"),
    ],
)
def test_each_source_gives_what_envoy_sends(name: str, line: str, more: tuple[str, ...], sent: str) -> None:
    """The descriptor of the request."""
    assert sent in explain(name, line, *more)


def test_a_route_has_the_union_of_what_is_in_force_there() -> None:
    """And what no route takes has that of the Gateway."""
    at = ("--gateway", "shop/edge", "--header", "x-user=ann")
    route = explain("gateway-and-route", "GET /api", *at, "--route", "shop/api")
    rest = explain("gateway-and-route", "GET /", *at)

    assert "Gateway shop/edge, listener http, HTTPRoute shop/api, rule 0: shop/edge, shop/api" in route
    assert "tidegate_policy=shop/api user=ann" in route
    assert "listener http: shop/edge\n" in rest


def test_a_rule_of_a_route_and_a_listener_are_chosen() -> None:
    """By name or number, and by the host of the request."""
    at = ("--gateway", "shop/edge", "--header", "x-user=ann")
    unclear = run("explain", "--policies", policy_set("route-rule"), "--request", "GET /", *at, "--route", "shop/api")
    write = explain("route-rule", "GET /", *at, "--route", "HTTPRoute/shop/api:write")
    read = explain("route-rule", "GET /", *at, "--route", "shop/api:0")
    other = explain("listener", "GET /", *at, "--header", "host=b.example.com:80", "--route", "shop/api")

    assert "choose a rule with --route shop/api:RULE; there are read, write" in unclear.output
    assert "rule write: shop/api" in write
    assert "rule read: no policy" in read
    assert "listener other, HTTPRoute shop/api, rule 0: shop/edge" in other


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--request", "GET"), 2, "write 'GET /path?query'"),
        (("--request", "GET /", "--remote", "home"), 2, "does not appear to be an IPv4 or IPv6 address"),
        (("--request", "GET /", "--header", "x"), 2, "is not name=value"),
        (("--request", "GET /", "user=ann"), 2, "give either a request or entries"),
        (("--request", "GET /", "--route", "shop/api"), 2, "--route needs --gateway"),
        (("--request", "GET /", "--gateway", "shop/edge", "--domain", "x"), 2, "are in domain tidegate.dev"),
        (("--request", "GET /", "--gateway", "shop/edge", "--route", "shop/x"), 1, "there is no shop/x on this"),
        (("user=ann",), 2, "entries need --domain"),
    ],
)
def test_what_cannot_be_explained_is_told(arguments: tuple[str, ...], code: int, words: str) -> None:
    """With the reason."""
    done = run("explain", "--policies", policy_set("gateway-and-route"), *arguments)

    assert done.exit_code == code
    assert words in done.output


def test_a_host_that_nothing_answers_to_is_told() -> None:
    """The wildcard covers names below the domain only."""
    done = run(
        "explain", "--policies", policy_set("wildcard-hostname"), "--request", "GET /", "--gateway", "shop/edge",
        "--header", "host=example.com",
    )  # fmt: skip

    assert "nothing there answers to host example.com" in done.output


def test_standard_input_is_a_file_like_any_other() -> None:
    """What `kubectl get -o yaml` writes: one `kind: List`."""
    documents = yaml.safe_load_all(Path(policy_set("route")).read_text(encoding="utf-8"))
    listing = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": list(documents)})
    done = CliRunner().invoke(main, ["render", "istio", "-"], input=listing)

    assert done.exit_code == 0, done.output
    assert done.output == run("render", "istio", policy_set("route")).output


@pytest.mark.parametrize("command", ["istio", "envoy-gateway"])
def test_one_gateway_can_be_chosen(command: str) -> None:
    """The others are left out; the choice has to be there."""
    done = run("render", command, policy_set("route"), "--gateway", "shop/edge", "--format", "json")
    wrong = run("render", command, policy_set("route"), "--gateway", "shop/other")

    assert json.loads(done.output)["metadata"]["name"] == "tidegate-edge"
    assert (wrong.exit_code, "there is shop/edge" in wrong.output) == (1, True)


@pytest.mark.parametrize("command", ["envoy", "istio", "envoy-gateway"])
def test_policies_come_from_paths_or_from_the_cluster(command: str, tmp_path: Path) -> None:
    """One of the two; a cluster that cannot be reached is told with where was looked."""
    neither, both = run("render", command), run("render", command, policy_set("route"), "--cluster")
    nowhere = run("render", command, "--cluster", "--kubeconfig", str(tmp_path / "gone"))

    assert (neither.exit_code, both.exit_code, nowhere.exit_code) == (2, 2, 1)
    assert "give either paths or --cluster" in neither.output
    assert "no API server" in nowhere.output


def test_what_kubectl_lists_is_read_from_standard_input() -> None:
    """A List with namespaces, routes and policies in it, and kinds that nobody here reads."""
    items = [each for each in yaml.safe_load_all(Path(policy_set("route")).read_text(encoding="utf-8")) if each]
    more = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "shop"}},
    ]
    listed = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [*items, *more]})
    from_list = CliRunner().invoke(main, ["render", "istio", "-"], input=listed)

    assert from_list.exit_code == 0, from_list.output
    assert from_list.stdout == run("render", "istio", policy_set("route")).stdout


def test_what_envoy_refuses_by_itself_is_foreseen() -> None:
    """Local limits stand before global ones, on a domain and on a route; an overriding rule has none."""
    ann = ("--header", "x-user=ann", "--repeat", "4")
    at = ("--gateway", "shop/edge", *ann)
    by_domain = explain("local", "GET /", *ann)
    elsewhere = explain("local-overridden", "GET /", *at)
    on_route = explain("local-overridden", "GET /api", *at, "--route", "shop/api")

    assert by_domain.splitlines()[-2:] == [
        "requests 1–2: OK",
        "requests 3–4: answered 429 by Envoy itself, local limit of user=ann",
    ]
    assert elsewhere.splitlines()[-2:] == [
        "request 1: OK",
        "requests 2–4: answered 429 by Envoy itself, local limit of tidegate_policy=shop/edge user=ann",
    ]
    assert on_route.splitlines()[-2:] == ["requests 1–3: OK", "request 4: OVER_LIMIT, answered 429"]


def test_envoy_speaks_tls_to_the_service_where_it_is_told_whom_to_trust() -> None:
    """By the host's name or address; a certificate of its own goes with its key, and with the CAs."""
    files = ("--service-ca", "/etc/ca.pem", "--service-cert", "/etc/e.crt", "--service-key", "/etc/e.key")
    for text, kind, host, named in (
        ("tidegate.svc:81", "DNS", "tidegate.svc", True),
        ("[::1]:81", "IP_ADDRESS", "::1", False),
    ):
        done = run("render", "envoy", policy_set("header-any"), "--service", text, "--format", "json", *files)
        (cluster,) = json.loads(done.output)["clusters"]
        typed = cluster["transport_socket"]["typed_config"]
        context = typed["common_tls_context"]

        assert context["validation_context"] == {
            "trusted_ca": {"filename": "/etc/ca.pem"},
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": host}}],
        }
        assert context["tls_certificates"][0]["private_key"] == {"filename": "/etc/e.key"}
        assert (typed.get("sni") == host) is named
    alone = run("render", "envoy", policy_set("header-any"), *files[:2], "--format", "json")
    half = run("render", "envoy", policy_set("header-any"), *files[:4])
    assert "tls_certificates" not in alone.output
    assert (half.exit_code, "--service-cert goes with --service-key" in half.output) == (2, True)

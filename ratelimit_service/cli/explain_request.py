"""`tidegate explain --request`: from an HTTP request to descriptors to verdicts."""

from __future__ import annotations

import ipaddress
import itertools
import os
from collections.abc import Callable, Iterable, Sequence

import click
import msgspec
from rich.console import Console
from rich.text import Text

from ratelimit_service.cli.descriptors import entries_text
from ratelimit_service.cli.manifests import Manifests, give_up, read_manifests, stop_if_refused
from ratelimit_service.cli.rehearsal import Rehearsal
from ratelimit_service.cli.render import find_gateway, listing, render_one_domain
from ratelimit_service.policy.model import RESERVED_DOMAIN
from ratelimit_service.policy.render.actions import Config, union
from ratelimit_service.policy.render.local import LOCAL_FILTER, settings_of, standing_rules
from ratelimit_service.policy.render.local_buckets import LocalBuckets
from ratelimit_service.policy.render.parts import ServiceAddress
from ratelimit_service.policy.render.requests import HttpRequest, descriptors
from ratelimit_service.policy.snapshot import Domain
from ratelimit_service.policy.targets.coverage import Coverage
from ratelimit_service.policy.targets.topology import ANY_HOST, Point, narrower
from ratelimit_service.wire.rls.messages import Verdict

Show = Callable[[Console, Domain, tuple[tuple[bytes, bytes], ...]], None]
"""Shows one descriptor."""

_NOWHERE = ServiceAddress("127.0.0.1", 1)


class RequestOptions(msgspec.Struct, frozen=True):
    """Options of the command that say what the request is and where it passes; as typed."""

    headers: tuple[str, ...]
    remote: str
    metadata: tuple[str, ...]
    gateway: str | None
    route: str | None


def explain_request(
    paths: Sequence[str], domain: str | None, line: str, repeat: int, options: RequestOptions, show: Show
) -> None:
    """Show the descriptors of a request, what each meets, and the verdicts on `repeat` equal requests."""
    request = _request(line, options)
    manifests = read_manifests(paths)
    if options.gateway is None:
        if options.route is not None:
            raise click.UsageError("--route needs --gateway")
        name, asking, where = _of_domain(manifests, domain)
    else:
        if domain not in (None, RESERVED_DOMAIN):
            raise click.UsageError(f"policies with targets are in domain {RESERVED_DOMAIN}")
        name, (asking, where) = RESERVED_DOMAIN, _of_gateway(manifests, options, request)
    console = Console()
    console.print(Text(where, style="bold"))
    sent = descriptors(request, asking.limits)
    if not sent:
        console.print("Envoy sends no descriptor: nothing is limited.")
    known = manifests.snapshot.domains.get(name.encode())
    for entries in sent:
        assert known is not None
        show(console, known, tuple(entries))
    local, rehearsal = LocalBuckets(asking.local), Rehearsal(manifests.snapshot)

    def decide() -> str:
        empty = local.refuses(request)
        if empty is not None:
            return f"answered 429 by Envoy itself, local limit of {entries_text(tuple(empty))}"
        return _text(rehearsal.decide(name, sent))

    for text in runs(decide() for _ in range(repeat)):
        console.print(Text(text))


class _Asking(msgspec.Struct, frozen=True):
    """What Envoy is configured with where the request passes: `rate_limits`, and the local filter's settings."""

    limits: list[Config]
    local: Config | None


def _of_domain(manifests: Manifests, domain: str | None) -> tuple[str, _Asking, str]:
    name, made = render_one_domain(manifests, domain, _NOWHERE)
    stop_if_refused(made.problems)
    limits, local = made.config["rate_limits"], made.config.get("typed_per_filter_config", {})
    assert isinstance(limits, list)
    assert isinstance(local, dict)
    return name, _Asking(limits, local.get(LOCAL_FILTER)), f"domain {name}"


def _of_gateway(manifests: Manifests, options: RequestOptions, request: HttpRequest) -> tuple[_Asking, str]:
    coverage = Coverage(manifests.policies, manifests.topology)
    stop_if_refused(coverage.problems())
    assert options.gateway is not None
    gateway = find_gateway(coverage, options.gateway)
    point = _chosen(coverage.points(gateway), options.route, request)
    standing = coverage.at(point)
    names = [f"{each.policy.metadata.namespace}/{each.policy.metadata.name}" for each in standing]
    where = f"{gateway}, listener {point.listener.name}"
    if point.route is not None:
        where += f", {point.route}, rule {point.route.rules[point.rule] or point.rule}"
    asking = _Asking(union(standing), settings_of(standing_rules(standing)))
    return asking, f"{where}: {', '.join(names) or 'no policy'}"


def _chosen(candidates: Iterable[Point], route: str | None, request: HttpRequest) -> Point:
    """The one point where the request passes; several listeners are told apart by its host."""
    met = [point for point in candidates if _names(point, route)]
    if not met:
        give_up(f"there is no {route} on this Gateway")
    host = (request.header("host") or b"").decode("utf-8", "replace").partition(":")[0]
    if host:
        met = [point for point in met if any(_covers(name, host) for name in point.hostnames)]
    rules = {point.rule: point for point in met}
    if not met:
        give_up(f"nothing there answers to host {host}")
    if len(rules) > 1:
        give_up(f"choose a rule with --route {route}:RULE; there are {listing(map(_rule_name, rules.values()))}")
    return max(met, key=lambda point: max(len(name) for name in point.hostnames))


def _covers(hostname: str, host: str) -> bool:
    return hostname == ANY_HOST or narrower(hostname, host) == host


def _names(point: Point, wanted: str | None) -> bool:
    if wanted is None or point.route is None:
        return wanted is None and point.route is None
    name, _, rule = wanted.partition(":")
    full = f"{point.route.kind.value}/{point.route.namespace}/{point.route.name}"
    return name in (full, full.partition("/")[2]) and rule in ("", _rule_name(point), str(point.rule))


def _rule_name(point: Point) -> str:
    assert point.route is not None
    return point.route.rules[point.rule] or str(point.rule)


def _text(answer: Verdict | str) -> str:
    if isinstance(answer, str):
        return answer
    return "OVER_LIMIT, answered 429" if answer.over else "OK"


def runs(texts: Iterable[str]) -> Iterable[str]:
    """One line per run of equal verdicts: `requests 1–5: OK`."""
    first = 1
    for text, equal in itertools.groupby(texts):
        count = len(list(equal))
        numbers = f"request {first}" if count == 1 else f"requests {first}–{first + count - 1}"
        yield f"{numbers}: {text}"
        first += count


def _request(line: str, options: RequestOptions) -> HttpRequest:
    """The request of the command line.

    Raises:
        click.BadParameter: A part of it cannot be read.
    """
    method, _, target = line.partition(" ")
    if not method or not target.startswith("/"):
        raise click.BadParameter(f"{line!r} is no request; write 'GET /path?query'", param_hint="--request")
    try:
        ipaddress.ip_address(options.remote)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--remote") from error
    headers = [_pair(text, "--header", "name=value") for text in options.headers]
    metadata = [_pair(text, "--metadata", "filter/key=value") for text in options.metadata]
    return HttpRequest(
        method=os.fsencode(method),
        target=os.fsencode(target),
        headers=tuple((os.fsencode(name.lower()), os.fsencode(value)) for name, value in headers),
        remote=options.remote,
        metadata={tuple(name.split("/")): value for name, value in metadata},
    )


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not {form}", param_hint=option)
    return name, value

"""`tidegate render`: the Envoy configuration that makes Envoy ask for policies."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, Final

import click
import msgspec
import yaml

from ratelimit_service.cli.manifests import Manifests, give_up, read_cluster, read_manifests, stop_if_refused, tell
from ratelimit_service.policy.documents import SourceFile, parse, plain
from ratelimit_service.policy.manifest_compile import domain_of
from ratelimit_service.policy.model import RESERVED_DOMAIN, RateLimitPolicy
from ratelimit_service.policy.render.actions import Config
from ratelimit_service.policy.render.bootstrap import NoPlace, put_into
from ratelimit_service.policy.render.envoy import Rendered, render_domain, render_gateway
from ratelimit_service.policy.render.envoy_gateway import Names
from ratelimit_service.policy.render.envoy_gateway import render_gateway as render_patch_policy
from ratelimit_service.policy.render.istio import render_gateway as render_istio_gateway
from ratelimit_service.policy.render.istio import render_workload
from ratelimit_service.policy.render.parts import InvalidAddress, ServiceAddress, ServiceTls
from ratelimit_service.policy.targets.coverage import Coverage
from ratelimit_service.policy.targets.topology import Gateway

LOOPBACK: Final = "127.0.0.1:8081"
IN_CLUSTER: Final = "tidegate.tidegate-system.svc.cluster.local:8081"


def _from_where(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its paths, the cluster in their place, and TLS to the service."""
    paths = click.argument("paths", nargs=-1, metavar="PATH…|--cluster")
    cluster = click.option("--cluster", is_flag=True, help="Read what the API server holds, in place of files.")
    kubeconfig = click.option("--kubeconfig", default="", help="How to reach it.  [KUBECONFIG, else ~/.kube/config]")
    ca = click.option("--service-ca", default="", metavar="FILE", help="Speak TLS to it; of Envoy's files: its CAs.")
    cert = click.option("--service-cert", default="", metavar="FILE", help="Certificate that Envoy shows it.")
    key = click.option("--service-key", default="", metavar="FILE", help="And its key.")
    return paths(cluster(kubeconfig(ca(cert(key(_secured(command)))))))


def _secured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Put what is said of TLS into the service's address."""

    @functools.wraps(command)
    def secured(
        *, service: ServiceAddress, service_ca: str, service_cert: str, service_key: str, **more: object
    ) -> object:
        if bool(service_cert) != bool(service_key) or (service_cert and not service_ca):
            raise click.UsageError("--service-cert goes with --service-key, and both with --service-ca")
        tls = ServiceTls(service_ca, service_cert, service_key) if service_ca else None
        return command(service=msgspec.structs.replace(service, tls=tls), **more)

    return secured


def _read(paths: tuple[str, ...], cluster: bool, kubeconfig: str) -> Manifests:
    if cluster == bool(paths):
        raise click.UsageError("give either paths or --cluster")
    return read_cluster(kubeconfig) if cluster else read_manifests(paths)


def address_of(ctx: click.Context, param: click.Parameter, value: str) -> ServiceAddress:  # noqa: ARG001 — click's
    """The value of an option as the service's address; a wrong one ends the command with 2."""
    try:
        return ServiceAddress.parse(value)
    except InvalidAddress as error:
        raise click.BadParameter(str(error)) from error


@click.group
def render() -> None:
    """Print the configuration that makes Envoy ask for policies.

    PATHs hold RateLimitPolicies, and where policies have targets, the Gateways and routes that they name; `-` is
    standard input, for what `kubectl get -o yaml` writes. With --cluster all of it comes from the API server.
    """


@render.command
@_from_where
@click.option(
    "--service", callback=address_of, default=LOOPBACK, show_default=True, help="Where Envoy finds the service."
)
@click.option("--domain", "domain", help="Which domain, where the policies name several.")
@click.option("--gateway", "gateway", metavar="NAMESPACE/NAME", help="Which Gateway, for policies with targets.")
@click.option("--into", type=click.File("rb"), metavar="FILE", help="A static configuration: print it with the parts.")
@click.option("--format", "style", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def envoy(
    paths: tuple[str, ...],
    cluster: bool,
    kubeconfig: str,
    service: ServiceAddress,
    domain: str | None,
    gateway: str | None,
    into: IO[bytes] | None,
    style: str,
) -> None:
    """Parts for a hand-written Envoy configuration: cluster, filter, `rate_limits`.

    `clusters` joins static_resources.clusters; `http_filters` goes before the router; `rate_limits` goes on every
    virtual host, and on every route that has a list of its own. With --into, that is done.
    """
    if into is not None and gateway is not None:
        raise click.UsageError("--into is for policies with a domain")
    manifests = _read(paths, cluster, kubeconfig)
    made = _of_gateway(manifests, gateway, service) if gateway else render_one_domain(manifests, domain, service)[1]
    stop_if_refused(made.problems)
    write([made.config if into is None else _whole(into, made.config)], style)


@render.command
@_from_where
@click.option("--service", callback=address_of, default=IN_CLUSTER, show_default=True, help="Where Envoy finds it.")
@click.option("--gateway", "gateway", metavar="NAMESPACE/NAME", help="Only this Gateway; its policies have targets.")
@click.option("--format", "style", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def istio(
    paths: tuple[str, ...], cluster: bool, kubeconfig: str, service: ServiceAddress, gateway: str | None, style: str
) -> None:
    """EnvoyFilters for Istio: one per Gateway of the Gateway API, one per policy with a `workloadSelector`."""
    manifests = _read(paths, cluster, kubeconfig)
    coverage = Coverage(manifests.policies, manifests.topology)
    gateways = coverage.gateways() if gateway is None else (find_gateway(coverage, gateway),)
    made = [render_istio_gateway(each, coverage, service) for each in gateways]
    if gateway is None:
        selecting = [policy for policy in manifests.policies if policy.spec.workload_selector is not None]
        workloads = [
            render_workload(policy, service, platform=manifests.is_platform(policy.metadata.namespace))
            for policy in selecting
        ]
        if cluster:
            # What the operator would not write is told and left out, as it does: files are refused whole instead.
            tell([problem for each in workloads if not each.manifest for problem in each.problems])
            workloads = [each for each in workloads if each.manifest]
        made += workloads
    stop_if_refused([*coverage.problems(), *(problem for each in made for problem in each.problems)])
    write([each.manifest for each in made], style)


@render.command("envoy-gateway")
@_from_where
@click.option("--service", callback=address_of, default=IN_CLUSTER, show_default=True, help="Where Envoy finds it.")
@click.option("--gateway", "gateway", metavar="NAMESPACE/NAME", help="Only this Gateway.")
@click.option(
    "--names",
    type=click.Choice([each.value for each in Names]),
    default=Names.LISTENER.value,
    show_default=True,
    help="Its scheme of names: `port` where its runtime flag XDSNameSchemeV2 is on.",
)
@click.option("--format", "style", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
def envoy_gateway(
    paths: tuple[str, ...],
    cluster: bool,
    kubeconfig: str,
    service: ServiceAddress,
    gateway: str | None,
    names: str,
    style: str,
) -> None:
    """EnvoyPatchPolicies for Envoy Gateway, one per Gateway; its EnvoyPatchPolicy extension must be enabled."""
    manifests = _read(paths, cluster, kubeconfig)
    coverage = Coverage(manifests.policies, manifests.topology)
    gateways = coverage.gateways() if gateway is None else (find_gateway(coverage, gateway),)
    made = [render_patch_policy(each, coverage, service, Names(names)) for each in gateways]
    stop_if_refused([*coverage.problems(), *(problem for each in made for problem in each.problems)])
    write([each.config for each in made], style)


def _whole(file: IO[bytes], parts: Config) -> Config:
    documents, faults = parse(SourceFile(file.name, file.read()))
    stop_if_refused(faults)
    try:
        return put_into(plain(documents[0].root) if documents else None, parts)
    except NoPlace as error:
        give_up(f"{file.name}: {error}")


def render_one_domain(manifests: Manifests, wanted: str | None, service: ServiceAddress) -> tuple[str, Rendered]:
    """A domain and its parts: the wanted one, else the only one; exits with 1 where the choice is not clear."""
    domains: dict[str, list[RateLimitPolicy]] = {}
    for policy in manifests.policies:
        domains.setdefault(domain_of(policy), []).append(policy)
    targeted = domains.pop(RESERVED_DOMAIN, [])
    if wanted is None and len(domains) != 1:
        if targeted and not domains:
            give_up("these policies have targets: name the Gateway with --gateway NAMESPACE/NAME")
        give_up(f"choose one with --domain; the policies name {listing(domains)}")
    name = wanted or next(iter(domains))
    if name not in domains:
        give_up(f"no policy names domain {name}; the policies name {listing(domains)}")
    return name, render_domain(name, domains[name], service)


def _of_gateway(manifests: Manifests, wanted: str, service: ServiceAddress) -> Rendered:
    coverage = Coverage(manifests.policies, manifests.topology)
    made = render_gateway(find_gateway(coverage, wanted), coverage, service)
    return Rendered(made.config, (*coverage.problems(), *made.problems))


def find_gateway(coverage: Coverage, wanted: str) -> Gateway:
    """The Gateway `NAMESPACE/NAME`; exits with 1 and names what there is."""
    known = {f"{gateway.namespace}/{gateway.name}": gateway for gateway in coverage.topology.gateways}
    if wanted not in known:
        give_up(f"there is no Gateway {wanted}; there is {listing(known)}")
    return known[wanted]


def listing(names: Iterable[str]) -> str:
    """Names for people, `none` where there are none."""
    return ", ".join(sorted(names)) or "none"


class _Dumper(yaml.SafeDumper):
    """Writes what is used twice twice: an anchor would be one more thing to read."""

    def ignore_aliases(self, data: object) -> bool:
        """Always."""
        return True


def write(documents: Sequence[object], style: str) -> None:
    """Print documents; JSON with several of them is a `List`."""
    if style == "json":
        whole = documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents}
        click.echo(json.dumps(whole, indent=2, ensure_ascii=False))
        return
    click.echo(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120), nl=False)

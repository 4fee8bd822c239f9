"""A snapshot changed domain by domain is the snapshot built at once; the same for a response compiled by steps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ratelimit_operator.plan.distribution import Resource
from ratelimit_operator.xds.forms import form_of
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.plan import Assembly, DomainPlan, assemble, dismantle_steps, merged, plan_digest
from ratelimit_service.policy.snapshot import Snapshot
from ratelimit_service.sources.xds.compiled import CompiledSet, compile_set
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE
from support.distributions import manifest_resource, policy_resource

PROFILES = [
    manifest_resource("CacheProfile", name, {"store": {"type": "Redis", "endpoints": [f"{name}-{number}:1"]}})
    for name in ("left", "right")
    for number in (0, 1)
]
POLICIES = [
    policy_resource(
        name,
        requests=requests,
        domain=domain,
        cacheProfileRef={"name": profile},
    )
    if profile
    else policy_resource(
        name,
        requests=requests,
        domain=domain,
    )
    for name, domain in (("a", "shop.a"), ("b", "shop.a"), ("c", "shop.c"), ("d", "shop.d"))
    for requests in (5, 6)
    for profile in ("", "left", "right")
]


def _one_of_each(resources: list[Resource]) -> list[Resource]:
    return list({each.id: each for each in resources}.values())


SETS = st.lists(
    st.tuples(st.lists(st.sampled_from(POLICIES), max_size=6), st.sampled_from((0, 1)), st.sampled_from((2, 3))),
    min_size=1,
    max_size=5,
)


@given(SETS)
def test_steps_lead_where_one_go_leads(sets) -> None:
    """Plans, snapshot and version, whatever was in force before; what is refused changes nothing."""
    compiled, snapshot = CompiledSet(), Snapshot("", {}, {})
    for policies, left, right in sets:
        resources = [form_of(each).packed for each in (*_one_of_each(policies), PROFILES[left], PROFILES[right])]
        whole = compile_set(CompiledSet(), RESOURCE_TYPE, resources, CompileOptions())
        step = compile_set(compiled, RESOURCE_TYPE, resources, CompileOptions())
        assert type(step) is type(whole)
        if not isinstance(step, CompiledSet):
            continue
        assert isinstance(whole, CompiledSet)
        assert step.version == whole.version
        assert step.plans == whole.plans
        assert {name: plan_digest(plan) for name, plan in step.plans.items()} == step.digests
        changed, gone = step.changed_from(compiled)
        snapshot = merged(snapshot, _part(changed, step.version), [name.encode() for name in gone])
        expected = assemble(list(whole.plans.values()))
        assert snapshot.domains == expected.domains
        assert snapshot.limits == {profile: limits for profile, limits in expected.limits.items() if limits}
        assert snapshot.backends == expected.backends
        assert snapshot.version == expected.version
        assert snapshot.rule_count == sum(len(domain.rules) for domain in snapshot.domains.values())
        compiled = step


def _part(plans: list[DomainPlan], version: str) -> Snapshot:
    assembly = Assembly(version)
    for plan in plans:
        assembly.open_domain(plan.head)
        for _ in assembly.add(plan.leaves):
            pass
        for _ in assembly.close_domain():
            pass
    return assembly.finish()


def test_an_empty_snapshot_is_let_go() -> None:
    """A folder without policies is a set too, and a change of the settings alone changes no domain."""
    retired = [Snapshot("", {}, {})]

    assert list(dismantle_steps(retired)) == []
    assert retired == []

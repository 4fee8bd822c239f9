"""A distribution as the contents of ConfigMaps."""

from __future__ import annotations

from ratelimit_operator.plan.distribution import Distribution, Enforcement, distribution_of, settings_resource
from ratelimit_operator.xds.bootstrap import BOOTSTRAP_PART_BYTES, bootstrap_parts, part_key
from ratelimit_operator.xds.forms import form_of
from ratelimit_operator.xds.view import View
from ratelimit_service.wire.xds.resources import RESOURCE_TYPE, decode_any, decode_resource
from ratelimit_service.wire.xds.snapshot_part import decode_parts


def distribution() -> Distribution:
    return distribution_of([settings_resource(Enforcement.SHADOW)])


def test_a_replica_reads_the_distribution_that_was_written() -> None:
    """Version, time, and every resource with its version, features and body."""
    running = View({str(each.id): form_of(each) for each in distribution().resources.values()})
    parts = bootstrap_parts(distribution(), 1_700_000_000_000_000)

    found, problems = decode_parts(parts)

    assert problems == []
    assert found is not None
    assert (found.version, found.compiled_at_us) == (running.version, 1_700_000_000_000_000)
    assert found.type_url == RESOURCE_TYPE
    (resource,) = (decode_resource(decode_any(packed).value) for packed in found.resources)
    (sent,) = distribution().resources.values()
    assert (resource.kind, resource.name, resource.version) == (sent.id.kind, sent.id.name, sent.version)
    assert (resource.required_features, resource.body) == (sent.required_features, sent.body)


def test_parts_fit_into_config_maps_and_stay_the_same() -> None:
    """Base64 included, and nothing is written anew for nothing."""
    assert BOOTSTRAP_PART_BYTES * 4 / 3 < 1024 * 1024
    assert bootstrap_parts(distribution(), 5) == bootstrap_parts(distribution(), 5)
    assert part_key(3) == "3.snapshot.gz"

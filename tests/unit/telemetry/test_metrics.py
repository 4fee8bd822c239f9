"""What a scrape shows, line by line."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.process_collector import ProcessCollector

from ratelimit_service.quota.leases.stats import LeaseStats
from ratelimit_service.quota.memory.bounds import StoreStats
from ratelimit_service.quota.redis.batch import BatchStats
from ratelimit_service.quota.redis.breaker import BreakerState
from ratelimit_service.quota.redis.faults import LossReason
from ratelimit_service.quota.redis.node_stats import NodeStats
from ratelimit_service.quota.redis.store import RedisStats
from ratelimit_service.quota.store import Role, Source
from ratelimit_service.telemetry.catalogue import METRICS, STORE, STORE_ROLES, render_metrics_reference
from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.telemetry.exposition import label_text, sample, seconds_text, value_text
from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.telemetry.metrics import Metrics
from ratelimit_service.telemetry.process import ProcessMetrics
from ratelimit_service.transport.native_settings import NativeStats
from ratelimit_service.wire.grpc.status import GrpcCode


def text_of(metrics):
    return b"".join(metrics.render()).decode()


def samples_of(metrics):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text_of(metrics))
        for sample in family.samples
    }


def test_a_rule_has_no_series_before_its_first_event():
    """And then only for what has happened."""
    metrics = Metrics("1")
    counters = metrics.counters.rule("shop", "user")
    assert 'rule="user"' not in text_of(metrics)

    counters.over = counters.hits = 3

    assert [line for line in text_of(metrics).splitlines() if 'rule="user"' in line] == [
        'tidegate_decisions_total{domain="shop",rule="user",result="over"} 3',
        'tidegate_hits_total{domain="shop",rule="user"} 3',
    ]


def shared_stats() -> RedisStats:
    """Of a store with one server, every number its own."""
    node = NodeStats(
        endpoint="redis:6379", available=True, loss=None, breaker=BreakerState.OPEN, breaker_opened=2, round_trips=9,
        round_trip_us=1_500_000, round_trip_buckets=(4, 5, *[0] * 16), lost={LossReason.TIMEOUT: 3}, connects=1,
        connect_failures=0, script_loads=1, redirects=0, new_boots=0, links=2, links_lent=1, pool_size=2,
        may_evict=False, degraded_us=0,
    )  # fmt: skip
    leases = LeaseStats(takes=11, granted=12, spent=13, returned=14, forfeited=15, stranded=16, degraded_us=2_500_000)
    return RedisStats(leases, BatchStats(batches=21, orders=22), [node], [], 3, 0)


def test_a_shared_store_tells_what_it_holds_and_how_its_servers_are():
    """Under its profile; a store that is gone shows nothing."""
    metrics = Metrics("1")
    metrics.add_shared_store("shop/fast", shared_stats)
    shown = samples_of(metrics)
    metrics.remove_store("shop/fast")
    node = (("node", "redis:6379"), ("profile", "shop/fast"))

    profile = ("profile", "shop/fast")
    assert shown["tidegate_store_hits_total", ("fate", "stranded"), profile] == 16
    assert shown["tidegate_store_degraded_seconds_total", profile] == 2.5
    assert shown["tidegate_store_replicas", profile] == 3
    assert shown["tidegate_store_breaker_state", *node, ("state", "open")] == 1
    assert shown["tidegate_store_breaker_state", *node, ("state", "closed")] == 0
    assert shown["tidegate_store_lost_round_trips_total", *node, ("reason", "timeout")] == 3
    assert shown["tidegate_store_round_trip_seconds_bucket", ("le", "0.0001"), *node] == 9
    assert shown["tidegate_store_round_trip_seconds_sum", *node] == 1.5
    assert not [sample for sample in samples_of(metrics) if profile in sample]


def test_each_kind_of_abuse_has_a_series_from_the_start():
    """So that an alert on its rate sees the first one."""
    metrics = Metrics("1")
    metrics.connections = lambda: NativeStats(7, 0, 5, 900, 12, {"rapid_reset": 0, "ping_flood": 2})

    lines = [line for line in text_of(metrics).splitlines() if "connection" in line and line[0] != "#"]

    assert lines == [
        "tidegate_connections 5",
        "tidegate_connections_accepted_total 7",
        "tidegate_connections_refused_total 0",
        'tidegate_connection_abuse_total{kind="rapid_reset"} 0',
        'tidegate_connection_abuse_total{kind="ping_flood"} 2',
    ]


def test_every_family_of_a_full_scrape_is_in_the_catalogue_with_its_type():
    """HELP, TYPE and the labels come from one place."""
    metrics = Metrics("1")
    counters = metrics.counters.rule("shop", "user")
    counters.ok = counters.hits = counters.near_limit_hits = 1
    metrics.counters.sources.memory += 1
    metrics.counters.error(GrpcCode.INVALID_ARGUMENT)
    metrics.bound = lambda domain, rule: 0
    metrics.config.applied("abc", domains=1, rules=2, wall_us=1)
    metrics.config.stream_changed(connected=True)
    metrics.add_store("", lambda: StoreStats(*range(1, 16)))
    metrics.connections = lambda: NativeStats(1, 2, 3, 4, 5, {"rapid_reset": 6})
    metrics.add_shared_store("shop/fast", shared_stats)
    known = {metric.name: metric for metric in METRICS}

    families = list(text_string_to_metric_families(text_of(metrics)))
    names = {f"{family.name}_total" if family.type == "counter" else family.name: family for family in families}
    ours = {name: family for name, family in names.items() if name.startswith("tidegate_")}

    assert set(ours) == set(known)
    assert {name: family.type for name, family in ours.items()} == {n: known[n].kind.value for n in ours}
    assert {name: family.documentation for name, family in ours.items()} == {n: known[n].meaning for n in ours}
    assert all(family.samples for family in families)
    assert all(set(s.labels) - {"le"} == set(known[n].labels) for n, f in ours.items() for s in f.samples)


def test_metrics_follow_the_naming_conventions():
    """Counters end in _total, nothing else does; all begin with the prefix."""
    assert all(metric.name.startswith("tidegate_") for metric in METRICS)
    assert all(metric.name.endswith("_total") == (metric.kind.value == "counter") for metric in METRICS)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_statistics_of_the_memory_store_are_all_shown():
    """A field that is added there must be named here."""
    assert set(StoreStats.__struct_fields__) == set(STORE) | set(STORE_ROLES)
    assert list(STORE_ROLES.values()) == [role.value for role in Role]


def test_stores_are_told_apart_by_profile_and_show_what_they_have():
    """A store with fewer statistics has fewer series."""

    class Few(msgspec.Struct):
        keys: int

    metrics = Metrics("1")
    metrics.add_store("", lambda: StoreStats(*range(1, 16)))
    metrics.add_store("ns/two", lambda: Few(keys=7))
    shown = samples_of(metrics)

    assert shown["tidegate_store_keys", ("profile", "ns/two")] == 7
    assert shown["tidegate_store_bytes", ("profile", "default")] == 2
    assert ("tidegate_store_bytes", ("profile", "ns/two")) not in shown
    assert shown["tidegate_store_charges_total", ("profile", "default"), ("role", "enforce")] == 11


def test_the_config_metrics_follow_loads_and_refusals():
    """A refused load leaves the version and raises the flag; the next good one lowers it."""
    metrics = Metrics("1")
    assert ("tidegate_config_rules",) not in samples_of(metrics)

    metrics.config.applied("v1", domains=1, rules=2, wall_us=1_700_000_000_500_000)
    metrics.config.refused()
    refused = samples_of(metrics)
    metrics.config.applied("v2", domains=3, rules=4, wall_us=1_700_000_001_000_000)
    mended = samples_of(metrics)

    assert refused["tidegate_config_info", ("version", "v1")] == 1
    assert refused["tidegate_config_applied_timestamp_seconds",] == 1_700_000_000.5
    assert [refused[f"tidegate_config_{name}",] for name in ("loads_total", "load_errors_total", "refused")] == [
        1,
        1,
        1,
    ]
    assert [mended[f"tidegate_config_{name}",] for name in ("loads_total", "refused", "domains", "rules")] == [
        2,
        0,
        3,
        4,
    ]
    assert ("tidegate_config_info", ("version", "v1")) not in mended


def test_a_bound_below_zero_shows_as_infinite():
    """Failure mode Open has none."""
    metrics = Metrics("1")
    metrics.counters.rule("shop", "open").ok = 1
    metrics.counters.rule("shop", "idle")
    metrics.bound = lambda domain, rule: -1

    lines = [line for line in text_of(metrics).splitlines() if line.startswith("tidegate_admission_bound{")]

    assert lines == ['tidegate_admission_bound{domain="shop",rule="open"} +Inf']


def test_pairs_beyond_the_cap_share_the_overflow():
    """At the cap, one more, and the overflow's own name."""
    table = CounterTable(max_series=2)
    first, second, third = (table.rule("d", name) for name in "abc")

    assert first is not second
    assert third is table.overflow is table.rule("_overflow", "_overflow")
    assert table.rule("d", "a") is first
    assert table.series_dropped == 1


def test_names_that_look_the_same_share_counters():
    r"""A lone surrogate shows as `\udcff`, and a rule may really be called so."""
    table = CounterTable()

    assert table.rule("d", "\udcff") is table.rule("d", "\\udcff")
    assert len(table.entries) == 1


def test_series_beyond_the_cap_are_summed_and_totals_stay_right():
    """Admitted once, admitted for ever; late once, late for ever."""
    metrics = Metrics("1", max_series=2)
    early, late = metrics.counters.rule("d", "early"), metrics.counters.rule("d", "late")
    early.ok = early.over = 1
    samples_of(metrics)
    early.deny = late.ok = late.hits = late.near_limit_hits = 5
    early.ok = 9
    metrics.bound = lambda domain, rule: 0
    shown = samples_of(metrics)
    again = samples_of(metrics)
    over = (("domain", "_overflow"), ("result", "ok"), ("rule", "_overflow"))

    assert shown["tidegate_decisions_total", ("domain", "d"), ("result", "ok"), ("rule", "early")] == 9
    assert shown["tidegate_decisions_total", *over] == 5
    assert shown["tidegate_hits_total", ("domain", "_overflow"), ("rule", "_overflow")] == 5
    assert shown["tidegate_metrics_series",] == 2
    assert shown["tidegate_metrics_series_dropped_total",] == again["tidegate_metrics_series_dropped_total",] == 5


def test_sources_are_counted_by_enum_and_by_attribute():
    """Both ways name the same count."""
    metrics = Metrics("1")
    metrics.counters.sources.add(Source.LEASE, 2)
    metrics.counters.sources.lease += 1

    assert samples_of(metrics)["tidegate_decision_sources_total", ("source", "lease")] == 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (2**64, "18446744073709551616"),
        (0.5, "0.5"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_values_are_exact(value, expected):
    """Integers keep every digit."""
    assert value_text(value) == expected


@pytest.mark.parametrize(("duration_us", "expected"), [(0, "0.000000"), (1, "0.000001"), (12_345_678, "12.345678")])
def test_seconds_are_exact(duration_us, expected):
    """No float in between."""
    assert seconds_text(duration_us) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [('a"b\\c\nd', 'a\\"b\\\\c\\nd'), ("é", "é"), ("x" * 256, "x" * 256), ("\udcff", "\\\\udcff")],
)
def test_labels_are_escaped(value, expected):
    """Backslash, quote, line feed, lone surrogates."""
    assert label_text(value) == expected


def test_a_long_label_keeps_its_beginning_and_stays_apart_from_others():
    """256 characters, the last 16 a digest of the whole."""
    one, other = label_text("x" * 257), label_text("x" * 257 + "y")

    assert len(one) == len(other) == 256
    assert one[:240] == other[:240] == "x" * 239 + "~"
    assert one != other


def test_a_sample_without_labels_has_no_braces():
    """As the format wants it."""
    assert (sample("a", 1), sample("a", 1, b="c", d="e")) == ("a 1\n", 'a{b="c",d="e"} 1\n')


@pytest.mark.parametrize(("duration_us", "bucket"), [(-5, 0), (0, 0), (10, 0), (11, 1), (20, 1), (21, 2), (10**9, 2)])
def test_a_duration_falls_into_the_first_bucket_that_holds_it(duration_us, bucket):
    """Bounds are inclusive; a negative duration counts as 0."""
    histogram = Histogram((10, 20))
    histogram.observe(duration_us, 3)

    assert histogram.counts == [3 * (bucket == index) for index in range(3)]
    assert histogram.sum_us == 3 * max(duration_us, 0)


def test_a_histogram_shows_cumulated_buckets_in_seconds():
    """The last bucket is the count."""
    histogram = Histogram((50, 1_000))
    histogram.observe(50)
    histogram.observe(2_000)

    assert "".join(histogram.lines("d")) == (
        'd_bucket{le="5e-05"} 1\nd_bucket{le="0.001"} 1\nd_bucket{le="+Inf"} 2\nd_sum 0.002050\nd_count 2\n'
    )


def test_process_metrics_are_those_of_prometheus_client():
    """Names, types, words, and values that have not changed in between."""
    ours = {family.name: family for family in text_string_to_metric_families("".join(ProcessMetrics().lines()))}
    theirs = {family.name: family for family in ProcessCollector(registry=None).collect()}
    steady = ("process_start_time_seconds", "process_max_fds")

    assert {name: (each.type, each.documentation) for name, each in ours.items()} == {
        name: (each.type, each.documentation) for name, each in theirs.items()
    }
    assert [ours[name].samples[0].value for name in steady] == [theirs[name].samples[0].value for name in steady]
    assert ours["process_resident_memory_bytes"].samples[0].value == pytest.approx(
        theirs["process_resident_memory_bytes"].samples[0].value, rel=0.2
    )
    assert ours["process_open_fds"].samples[0].value > 2


def test_a_file_of_procfs_that_cannot_be_read_leaves_its_metrics_out(tmp_path):
    """Others are told; a limit may be none."""
    (tmp_path / "stat").write_text("cpu 1 2\nbtime 1000\n")
    nothing = list(ProcessMetrics(proc=str(tmp_path)).lines())
    (tmp_path / "self" / "fd").mkdir(parents=True)
    (tmp_path / "self" / "limits").write_text("Max open files  unlimited  unlimited  files\n")

    assert nothing == []
    assert [line for line in ProcessMetrics(proc=str(tmp_path)).lines() if line.startswith("process")] == [
        "process_open_fds 0.0\n",
        "process_max_fds +Inf\n",
    ]


def test_without_procfs_there_are_no_process_metrics(tmp_path):
    """And no error."""
    assert list(ProcessMetrics(proc=str(tmp_path)).lines()) == []


def test_the_reference_page_has_a_row_for_each_metric():
    """Made from the catalogue."""
    page = render_metrics_reference()

    assert all(f"| `{metric.name}` | {metric.kind.value} |" in page for metric in METRICS)

"""The metrics of several processes as those of one."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ratelimit_service.telemetry.histogram import Histogram
from ratelimit_service.telemetry.metrics import Metrics
from ratelimit_service.telemetry.sums import Scrape, add_ended, read_scrape, summed
from ratelimit_service.wire.grpc.status import GrpcCode


def rendered(metrics: Metrics) -> str:
    return b"".join(metrics.render()).decode()


def together(*texts: str, ended: Scrape | None = None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape of the sum shows, read by the reference parser."""
    text = b"".join(summed([read_scrape(text) for text in texts], {} if ended is None else ended)).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counting(calls: int, *, version: str = "v1") -> Metrics:
    """A process that has counted some calls."""
    metrics = Metrics("1.2.3")
    metrics.counters.unknown_domains = calls
    for _ in range(calls):
        metrics.counters.error(GrpcCode.INTERNAL)
        metrics.request_duration.observe(1_500)
    metrics.config.applied(version, domains=3, rules=7, wall_us=calls * 1_000_000)
    return metrics


def test_counts_are_added_and_states_are_not() -> None:
    """Histograms bucket by bucket; of states the greatest, and of the start the first."""
    seen = together(rendered(counting(2)), rendered(counting(3)))

    assert seen["tidegate_unknown_domain_total", ()] == 5
    assert seen["tidegate_request_errors_total", (("code", "INTERNAL"),)] == 5
    assert seen["tidegate_request_duration_seconds_count", ()] == 5
    assert seen["tidegate_request_duration_seconds_bucket", (("le", "+Inf"),)] == 5
    assert seen["tidegate_config_rules", ()] == 7
    assert seen["tidegate_config_info", (("version", "v1"),)] == 1
    assert seen["tidegate_config_applied_timestamp_seconds", ()] == 3
    assert [value for (name, _), value in seen.items() if name == "tidegate_build_info"] == [1]


def test_readiness_is_not_added() -> None:
    """The process that adds has its own."""
    assert ("tidegate_ready", ()) not in together(rendered(counting(1)))


def test_series_of_one_are_there_too() -> None:
    """Two versions in force at once show as two."""
    seen = together(rendered(counting(1, version="old")), rendered(counting(1, version="new")))

    assert {labels for name, labels in seen if name == "tidegate_config_info"} == {
        (("version", "old"),), (("version", "new"),),
    }  # fmt: skip


def test_one_alone_is_as_it_was() -> None:
    """Same families, names, labels and values, in the same order."""
    text = rendered(counting(4))
    kept = b"".join(summed([read_scrape(text)], {})).decode()
    whole = [family for family in text_string_to_metric_families(text) if family.name != "tidegate_ready"]

    assert list(text_string_to_metric_families(kept)) == whole


@given(lives=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_counter_never_falls(lives: Sequence[Sequence[int]]) -> None:
    """One process after the other counts, is scraped, and ends; Prometheus would take a fall for a restart."""
    ended: Scrape = {}
    before = 0.0
    for steps in lives:
        metrics, last = Metrics("1"), ""
        for step in steps:
            metrics.counters.unmatched += step
            last = rendered(metrics)
            now = together(last, ended=ended)["tidegate_unmatched_descriptors_total", ()]
            assert now >= before
            before = now
        add_ended(ended, read_scrape(last))

    assert before == sum(sum(steps) for steps in lives)
    assert together(ended=ended)["tidegate_unmatched_descriptors_total", ()] == before


def test_what_a_process_was_ends_with_it() -> None:
    """Only what never falls is kept: its connections and its memory are gone."""
    ended: Scrape = {}
    add_ended(ended, read_scrape(rendered(counting(2))))

    assert {family.kind for family in ended.values()} == {"counter", "histogram"}


def test_fractions_are_added_too() -> None:
    """Sums of durations."""
    one, other = Histogram(), Histogram()
    one.observe(1_500_000)
    other.observe(250_000)
    texts = ["# HELP h x\n# TYPE h histogram\n" + "".join(each.lines("h")) for each in (one, other)]

    assert together(*texts)["h_sum", ()] == 1.75

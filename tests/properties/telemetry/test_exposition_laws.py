"""What is rendered reads back as what was counted, by prometheus-client's parser, for any names."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ratelimit_service.telemetry.counter_table import CounterTable
from ratelimit_service.telemetry.exposition import LINES_PER_SLICE, label_text
from ratelimit_service.telemetry.histogram import DURATION_BOUNDS_US, Histogram
from ratelimit_service.telemetry.metrics import Metrics

RESULTS = ("ok", "over", "shadow_over", "allow", "deny")
# The parser reads values as floats.
counts = st.integers(0, 2**53)
names = st.text(st.sampled_from('a"\\\n,={}# é\r\u2028\x00n_'), max_size=6) | st.text(max_size=300)
rows = st.lists(st.tuples(names, names, st.lists(counts, min_size=7, max_size=7)), max_size=12)

small = st.lists(st.integers(0, 2), min_size=7, max_size=7)
few_rows = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), small), max_size=9)
OF_RULES = ("tidegate_decisions_total", "tidegate_hits_total", "tidegate_near_limit_hits_total")


def filled(pairs, max_series=20_000):
    metrics = Metrics("1", max_series)
    for domain, rule, values in pairs:
        counters = metrics.counters.rule(domain, rule)
        for field, value in zip((*RESULTS, "hits", "near_limit_hits"), values, strict=True):
            setattr(counters, field, getattr(counters, field) + value)
    return metrics


def read_back(text):
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def unescaped(value):
    """What a reader sees of a label."""
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], label_text(value))


def total(found, name, **labels):
    return sum(value for key, value in found.items() if key[0] == name and set(labels.items()) <= set(key[1:]))


@given(rows)
@example([("a", "\\n", [1] * 7), ("a", "\n", [1] * 7)])
@example([("", "", [1] * 7)])
@example([("", "\x00\\", [1] * 7)])
def test_every_count_reads_back(pairs):
    """Whatever the labels hold, the parser finds the same numbers under the same names."""
    metrics = filled(pairs)
    found = read_back(b"".join(metrics.render()).decode())

    expected = {}
    for entry in metrics.counters.entries:
        labels = {"domain": unescaped(entry.counters.domain), "rule": unescaped(entry.counters.rule)}
        for result in RESULTS:
            key = ("tidegate_decisions_total", *sorted({**labels, "result": result}.items()))
            expected[key] = getattr(entry.counters, result)
        expected["tidegate_hits_total", *sorted(labels.items())] = entry.counters.hits
        expected["tidegate_near_limit_hits_total", *sorted(labels.items())] = entry.counters.near_limit_hits

    assert {key: value for key, value in found.items() if key[0] in OF_RULES} == {
        k: v for k, v in expected.items() if v
    }


@given(few_rows, st.integers(0, 9))
def test_the_cap_holds_and_loses_no_count(pairs, max_series):
    """However few series are allowed, sums over all rules are exact, and no series goes back between scrapes."""
    metrics = filled(pairs, max_series)
    first = read_back(b"".join(metrics.render()).decode())
    for entry in metrics.counters.entries:
        entry.counters.ok += 1
    second = read_back(b"".join(metrics.render()).decode())

    own = [key for key in second if key[0] in OF_RULES and ("domain", "_overflow") not in key]
    assert len(own) <= max_series
    assert total(first, "tidegate_hits_total") == sum(values[5] for _, _, values in pairs)
    assert total(first, "tidegate_decisions_total") == sum(sum(values[:5]) for _, _, values in pairs)
    assert all(second.get(key, 0) >= value for key, value in first.items() if key[0] in OF_RULES)


def _unescaped_newline(value):
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _unescaped_backslash(value):
    return value.replace('"', '\\"').replace("\n", "\\n")


def test_the_law_catches_planted_escapes():
    """A renderer that forgets line feeds, or backslashes, does not read back."""
    reads = []
    for escape in (_unescaped_newline, _unescaped_backslash):
        for value in ("a\nb", "a\\nb"):
            try:
                found = read_back(f'a{{b="{escape(value)}"}} 1\n')
            except ValueError:
                found = {}
            reads.append(found == {("a", ("b", value)): 1})

    assert reads == [False, True, True, False]


@given(
    st.lists(st.sampled_from([*DURATION_BOUNDS_US, *(b + 1 for b in DURATION_BOUNDS_US), -1, 0, 10**8]), max_size=20)
)
def test_buckets_count_what_is_at_most_their_bound(durations_us):
    """Each `le` counts every observation up to it, and `+Inf` all."""
    histogram = Histogram()
    for duration_us in durations_us:
        histogram.observe(duration_us)
    found = read_back("# TYPE d histogram\n" + "".join(histogram.lines("d")))

    for bound_us in DURATION_BOUNDS_US:
        at_most = sum(duration_us <= bound_us for duration_us in durations_us)
        assert found["d_bucket", ("le", str(bound_us / 1_000_000))] == at_most
    assert found["d_count",] == found["d_bucket", ("le", "+Inf")] == len(durations_us)


@given(st.integers(0, 450))
def test_no_slice_has_more_lines_than_the_budget(rules):
    """A slice is bounded by construction: whatever the number of rules."""
    metrics = filled([("d", str(number), [1] * 7) for number in range(rules)])

    assert max(piece.count(b"\n") for piece in metrics.render()) <= LINES_PER_SLICE


@given(st.lists(st.tuples(names, names), max_size=12), st.integers(0, 12))
def test_the_table_gives_the_same_counters_for_the_same_names(pairs, max_series):
    """And never more of them than the cap."""
    table = CounterTable(max_series)
    first = [table.rule(*pair) for pair in pairs]

    assert [table.rule(*pair) for pair in pairs] == first
    assert len(table.entries) <= max_series

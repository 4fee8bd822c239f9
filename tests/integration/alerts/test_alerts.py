"""Every alert fires on the fault that it is for, stays silent without it, and has its page. Judged by promtool."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
RULES = ROOT / "helm" / "tidegate" / "files" / "rules.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks"
GROUPS = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}

_JOB = 'job="tidegate",instance="a"'
_CALLS = f"tidegate_request_duration_seconds_count{{{_JOB}}}"
_BUSY = {_CALLS: "0+6000x400"}
"""A hundred calls a second, for 400 minutes."""


def _rule(result: str) -> str:
    return f'tidegate_decisions_total{{{_JOB},domain="shop",rule="per-user",result="{result}"}}'


def _conditions(condition: str, status: str) -> str:
    return f'tidegate_operator_policies{{job="operator",condition="{condition}",status="{status}"}}'


def _envoy(name: str) -> str:
    return f'envoy_cluster_ratelimit_{name}{{job="envoy",envoy_cluster_name="shop"}}'


# Alert → (minutes until it must fire, series with the fault, series without).
CASES: Mapping[str, tuple[int, Mapping[str, str], Mapping[str, str]]] = {
    "TidegateErrorBudgetBurnFast": (
        70,
        {**_BUSY, f'tidegate_request_errors_total{{{_JOB},code="UNAVAILABLE"}}': "0+60x400"},
        {**_BUSY, f'tidegate_request_errors_total{{{_JOB},code="UNAVAILABLE"}}': "0+2x400"},
    ),
    "TidegateErrorBudgetBurnSlow": (
        390,
        {**_BUSY, f'tidegate_decision_sources_total{{{_JOB},source="fallback"}}': "0+24x400"},
        {**_BUSY, f'tidegate_decision_sources_total{{{_JOB},source="fallback"}}': "0+2x400"},
    ),
    "TidegateLatencyBudgetBurn": (
        45,
        {**_BUSY, f'tidegate_request_duration_seconds_bucket{{{_JOB},le="0.005"}}': "0+5400x400"},
        {**_BUSY, f'tidegate_request_duration_seconds_bucket{{{_JOB},le="0.005"}}': "0+5990x400"},
    ),
    "TidegateReplicaNotReady": (
        7,
        {f"tidegate_ready{{{_JOB}}}": "0x20"},
        {f"tidegate_ready{{{_JOB}}}": "0 0 0 1x20"},
    ),
    "TidegateStoreDown": (
        3,
        {f'tidegate_store_node_up{{{_JOB},profile="p",node="redis:6379"}}': "0x20"},
        {f'tidegate_store_node_up{{{_JOB},profile="p",node="redis:6379"}}': "1x20"},
    ),
    "TidegateFallbackActive": (
        12,
        {f'tidegate_decision_sources_total{{{_JOB},source="fallback"}}': "0+60x20"},
        {f'tidegate_decision_sources_total{{{_JOB},source="lease"}}': "0+60x20"},
    ),
    "TidegateStoreMayEvict": (
        12,
        {f'tidegate_store_may_evict{{{_JOB},profile="p",node="redis:6379"}}': "1x20"},
        {f'tidegate_store_may_evict{{{_JOB},profile="p",node="redis:6379"}}': "0x20"},
    ),
    "TidegateStoreFull": (
        12,
        {
            f'tidegate_store_refused_total{{{_JOB},profile="p"}}': "0+60x20",
            f'tidegate_store_uncounted_total{{{_JOB},profile="p"}}': "0x20",
        },
        {
            f'tidegate_store_refused_total{{{_JOB},profile="p"}}': "7x20",
            f'tidegate_store_uncounted_total{{{_JOB},profile="p"}}': "0x20",
        },
    ),
    "TidegateConnectionAbuse": (
        11,
        {f'tidegate_connection_abuse_total{{{_JOB},kind="rapid_reset"}}': "0+3x20"},
        {f'tidegate_connection_abuse_total{{{_JOB},kind="rapid_reset"}}': "0 1x20"},
    ),
    "TidegateConfigRejected": (
        3,
        {f"tidegate_config_refused{{{_JOB}}}": "1x20"},
        {f"tidegate_config_refused{{{_JOB}}}": "0x20"},
    ),
    "TidegateConfigVersionSkew": (
        7,
        {
            'tidegate_config_info{job="tidegate",instance="a",version="1"}': "1x20",
            'tidegate_config_info{job="tidegate",instance="b",version="2"}': "1x20",
        },
        {
            'tidegate_config_info{job="tidegate",instance="a",version="2"}': "1x20",
            'tidegate_config_info{job="tidegate",instance="b",version="2"}': "1x20",
        },
    ),
    "TidegatePolicyNotProgrammed": (
        12,
        {_conditions("Programmed", "False"): "2x20"},
        {_conditions("Programmed", "True"): "2x20", _conditions("Accepted", "False"): "1x20"},
    ),
    "TidegateResourceQuarantined": (
        3,
        {'tidegate_operator_quarantined{job="operator"}': "1x20"},
        {'tidegate_operator_quarantined{job="operator"}': "0x20"},
    ),
    "TidegatePushHeld": (
        4,
        {'tidegate_operator_xds_held{job="operator"}': "1x20"},
        {'tidegate_operator_xds_held{job="operator"}': "0x20"},
    ),
    "TidegatePropagationSlow": (
        7,
        {'tidegate_operator_propagation_seconds{job="operator"}': "25x20"},
        {'tidegate_operator_propagation_seconds{job="operator"}': "0.4x20"},
    ),
    "TidegateOperatorNoLeader": (
        4,
        {'tidegate_operator_leader{job="operator"}': "0x20", f"tidegate_build_info{{{_JOB}}}": "1x20"},
        {
            'tidegate_operator_leader{job="operator",instance="a"}': "0x20",
            'tidegate_operator_leader{job="operator",instance="b"}': "1x20",
            f"tidegate_build_info{{{_JOB}}}": "1x20",
        },
    ),
    "TidegateOperatorNotReady": (
        7,
        {'tidegate_operator_ready{job="operator",instance="a"}': "0x20"},
        {
            'tidegate_operator_ready{job="operator",instance="a"}': "0x20",
            'tidegate_operator_ready{job="operator",instance="b"}': "1x20",
        },
    ),
    "TidegateWatchStale": (
        7,
        {'tidegate_operator_list_age_seconds{job="operator",kind="ratelimitpolicies"}': "400x20"},
        {'tidegate_operator_list_age_seconds{job="operator",kind="ratelimitpolicies"}': "59x20"},
    ),
    "TidegateEnforcementShadow": (
        17,
        {'tidegate_operator_enforcement_shadow{job="operator"}': "1x20"},
        {'tidegate_operator_enforcement_shadow{job="operator"}': "0x20"},
    ),
    "TidegateEnvoyFailOpen": (
        12,
        {_envoy("ok"): "0+600x20", _envoy("error"): "0+6x20", _envoy("failure_mode_allowed"): "0+6x20"},
        {_envoy("ok"): "0+600x20", _envoy("error"): "0x20", _envoy("failure_mode_allowed"): "0x20"},
    ),
    "TidegateUnknownDomain": (
        27,
        {f"tidegate_unknown_domain_total{{{_JOB}}}": "0+60x40"},
        {f"tidegate_unknown_domain_total{{{_JOB}}}": "9x40"},
    ),
    "TidegateSeriesDropped": (
        16,
        {f"tidegate_metrics_series_dropped_total{{{_JOB}}}": "0+1x40"},
        {f"tidegate_metrics_series_dropped_total{{{_JOB}}}": "4x40"},
    ),
    "TidegateRuleSaturated": (
        40,
        {_rule("over"): "0+200x60", _rule("ok"): "0+400x60"},
        {_rule("over"): "0+20x60", _rule("ok"): "0+580x60"},
    ),
    "TidegateShadowWouldReject": (
        40,
        {_rule("shadow_over"): "0+20x60"},
        {_rule("shadow_over"): "5x60"},
    ),
}


def _promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool: apt-get install prometheus")
    return found


def _firing(folder: Path, alert: str, minutes: int, series: Mapping[str, str], wanted: Sequence[dict]) -> str:
    """What promtool says about the alerts at that minute; empty when they are the wanted ones."""
    case = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": list(wanted)}],
            }
        ],
    }
    path = folder / f"{alert}.yaml"
    path.write_text(yaml.safe_dump(case), encoding="utf-8")
    done = subprocess.run([_promtool(), "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_fires_on_its_fault_and_only_on_it(tmp_path: Path, alert: str) -> None:
    """At its time with the fault: exactly one, with its severity. Without: none."""
    minutes, faulty, healthy = CASES[alert]
    fired = _firing(tmp_path, alert, minutes, faulty, [])

    assert f'alertname="{alert}"' in fired
    assert fired.count("severity") == 1
    assert f'severity="{ALERTS[alert]["labels"]["severity"]}"' in fired
    assert _firing(tmp_path, alert, minutes, healthy, []) == ""


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_says_what_to_do(alert: str) -> None:
    """Severity, summary, description, and a page that names it and says what to look at and what mends it."""
    rule = ALERTS[alert]
    page = (RUNBOOKS / f"{alert}.md").read_text(encoding="utf-8")

    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"] == f"https://tidegate.dev/runbooks/{alert}"
    assert page.startswith(f"# {alert}\n")
    for heading in ("## What it means", "## What to look at", "## What mends it"):
        assert heading in page


def test_every_rule_reads() -> None:
    """Promtool's own check, and no test or page without its alert."""
    done = subprocess.run([_promtool(), "check", "rules", str(RULES)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert set(CASES) == set(ALERTS)
    assert {page.stem for page in RUNBOOKS.glob("Tidegate*.md")} == set(ALERTS)

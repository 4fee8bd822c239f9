"""Write everything that is made from the code, or with `--check` say what is out of date (exit 1)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "operator")]

from ratelimit_operator.api.crds import CACHE_PROFILE, RATE_LIMIT_POLICY, render_crd  # noqa: E402 — after the path is set
from ratelimit_operator.flags import FLAGS as OPERATOR_FLAGS  # noqa: E402 — after the path is set
from ratelimit_operator.metrics import render_operator_metrics_reference  # noqa: E402 — after the path is set
from ratelimit_service.flags import FLAGS, Flag  # noqa: E402 — after the path is set
from ratelimit_service.policy.reference import render_policy_reference  # noqa: E402
from ratelimit_service.telemetry.catalogue import render_metrics_reference  # noqa: E402
from tools import api_reference, benchmark_page, charts, crd_history, licences, reflection_descriptors  # noqa: E402
from tools.cache_figures import render_cache_figures  # noqa: E402
from tools.cache_metrics import render_cache_metrics_reference, render_library_metrics_reference  # noqa: E402
from tools.cluster_page import render_cluster_figures  # noqa: E402
from tools.dashboards.boards import BOARDS  # noqa: E402
from tools.dashboards.panels import render as render_board  # noqa: E402
from tools.fault_figures import render_fault_figures  # noqa: E402
from tools.history_figures import render_histories  # noqa: E402


def _row(flag: Flag) -> str:
    environment = ", ".join(f"`{name}`" for name in flag.environment)
    default = f"`{flag.default}`" if flag.default else ""
    return f"| `{flag.name}` | {default} | {environment} | {flag.help} |"


def render_operator_flags_reference() -> str:
    """The reference page of `tidegate-operator`."""
    lines = [
        "# Flags of `tidegate-operator`",
        "",
        "Every flag is also an environment variable; the flag wins.",
        "A flag that may be repeated takes several values in the environment, parted by `,`.",
        "Wrong values are told all at once, with exit code 2.",
        "",
        "| flag | default | environment | meaning |",
        "|---|---|---|---|",
        *map(_row, OPERATOR_FLAGS),
    ]
    return "\n".join(lines) + "\n"


def render_flags_reference() -> str:
    """The reference page of `tidegate serve`."""
    lines = [
        "# Flags of `tidegate serve`",
        "",
        "Every flag is also an environment variable; the flag wins.",
        "A flag that may be repeated takes several values in the environment, parted by `,` (`--policies`: by `:`).",
        "Wrong values are told all at once, with exit code 2.",
        "",
        "| flag | default | environment | meaning |",
        "|---|---|---|---|",
        *map(_row, FLAGS),
    ]
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "docs/reference/policy-fields.md": render_policy_reference,
    "docs/reference/metrics.md": render_metrics_reference,
    "docs/reference/flags.md": render_flags_reference,
    "docs/reference/licences.md": licences.render_licences,
    "docs/explanation/cache-figures.md": render_cache_figures,
    "docs/explanation/fault-figures.md": render_fault_figures,
    "docs/explanation/on-a-cluster.md": render_cluster_figures,
    "docs/explanation/histories.md": render_histories,
    "docs/reference/cache-metrics.md": render_cache_metrics_reference,
    "docs/reference/library-metrics.md": render_library_metrics_reference,
    "docs/reference/operator-flags.md": render_operator_flags_reference,
    "docs/reference/operator-metrics.md": render_operator_metrics_reference,
    "docs/reference/python-api.md": api_reference.render_api_reference,
    "docs/reference/library-figures.md": benchmark_page.render_library_figures,
    "docs/reference/python-cache-api.md": api_reference.render_cache_api_reference,
    "crds/ratelimitpolicies.yaml": lambda: render_crd(RATE_LIMIT_POLICY),
    "crds/cacheprofiles.yaml": lambda: render_crd(CACHE_PROFILE),
    # After the definitions, of which the charts hold copies.
    "helm/tidegate/files/crds/ratelimitpolicies.yaml": lambda: charts.copy_of("ratelimitpolicies.yaml"),
    "helm/tidegate/files/crds/cacheprofiles.yaml": lambda: charts.copy_of("cacheprofiles.yaml"),
    "helm/tidegate-crds/files/ratelimitpolicies.yaml": lambda: charts.copy_of("ratelimitpolicies.yaml"),
    "helm/tidegate-crds/files/cacheprofiles.yaml": lambda: charts.copy_of("cacheprofiles.yaml"),
    "helm/tidegate/files/rbac.json": charts.render_rbac,
    "helm/tidegate/values.schema.json": charts.render_values_schema,
    "helm/tidegate/README.md": charts.render_chart_readme,
    **{f"helm/tidegate/files/dashboards/{it.uid}.json": partial(render_board, it) for it in BOARDS},
}


def stale_pages() -> list[str]:
    """Reference pages that are not what the code says."""
    return [
        name
        for name, render in PAGES.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != render()
    ]


def check(kind: str) -> int:
    """Say what is stale among the files of a kind (`reference`, `descriptors`, empty: all); 1 if anything is."""
    stale = stale_pages() if kind in ("", "reference") else []
    for name in stale:
        print(f"{name} is not what the code says: run `make generate`", file=sys.stderr)
    forgotten = crd_history.problems() if kind in ("", "reference") else []
    for problem in forgotten:
        print(problem, file=sys.stderr)
    descriptors = reflection_descriptors.main(["--check"]) if kind in ("", "descriptors") else 0
    return int(bool(stale) or bool(forgotten) or bool(descriptors))


def main(arguments: list[str]) -> int:
    """Write, or with `--check [KIND]` check."""
    if arguments[:1] == ["--check"]:
        return check("".join(arguments[1:]))
    for name, render in PAGES.items():
        (ROOT / name).write_text(render(), encoding="utf-8")
    crd_history.keep()
    return int(reflection_descriptors.main([]) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

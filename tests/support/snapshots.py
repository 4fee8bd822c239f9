"""Snapshots from the text of manifests, through the same decoder and compiler as the service's."""

from __future__ import annotations

from textwrap import dedent, indent

from ratelimit_service.policy.compile import compile as compile_set
from ratelimit_service.policy.compile import refuses
from ratelimit_service.policy.decode import decode
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.policy.problems import Problem
from ratelimit_service.policy.snapshot import Snapshot


def problems_of(*texts: str, merge: bool = False) -> tuple[Snapshot, list[Problem]]:
    """What the texts, a file each (`0.yaml`, `1.yaml`…), compile to, and all that is wrong with them."""
    files = [SourceFile(f"{number}.yaml", dedent(text).encode()) for number, text in enumerate(texts)]
    objects, problems = decode(files, merge_domains=merge)
    snapshot, more = compile_set(objects, CompileOptions(merge_domain_config=merge))
    return snapshot, problems + more


def snapshot_of(*texts: str, merge: bool = False) -> Snapshot:
    """The snapshot of texts without an error; both formats may be mixed."""
    snapshot, problems = problems_of(*texts, merge=merge)
    assert not refuses(problems), problems
    return snapshot


def policy(rules: str, *, domain: str = "shop", name: str = "policy", spec: str = "") -> str:
    """A `RateLimitPolicy` of one domain.

    Args:
        rules: The list of rules as YAML, indented or not.
        domain: Its domain.
        name: Of the object, namespace `shop`.
        spec: More fields of `spec`, a line each.
    """
    head = (
        "apiVersion: tidegate.dev/v1alpha1\nkind: RateLimitPolicy\n"
        f"metadata: {{name: {name}, namespace: shop}}\nspec:\n  domain: {domain}\n"
    )
    return head + indent(dedent(spec), "  ") + "\n  rules:\n" + indent(dedent(rules), "  ")

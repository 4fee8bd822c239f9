"""From files to objects: kinds, order, lines, warnings."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from ratelimit_service.policy.decode import MAX_PROBLEMS, decode, decode_manifest
from ratelimit_service.policy.documents import SourceFile
from ratelimit_service.policy.encode import encode
from ratelimit_service.policy.model import RateLimitPolicy
from ratelimit_service.policy.origin import Origin, parent
from ratelimit_service.policy.problems import Severity
from ratelimit_service.policy.profile_model import CacheProfile, StoreSpec
from ratelimit_service.policy.rules import CEL_RULES

MINIMAL = """\
apiVersion: tidegate.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: checkout, namespace: shop}
spec:
  domain: shop.checkout
  rules:
  - name: per-user
    match: [{key: user, type: Any}]
    limits: [{requests: 5, window: 10s, algorithm: SlidingWindow}]
"""


def _decode(text: str, name: str = "shop.yaml") -> tuple[list[object], list[str]]:
    objects, problems = decode([SourceFile(name, text.encode())])
    return list(objects), [f"{each.severity.value} {each}" for each in problems]


def test_the_minimal_policy_works_as_written() -> None:
    """No field more than its author had to think of."""
    (policy,), problems = _decode(MINIMAL)

    assert problems == []
    assert isinstance(policy, RateLimitPolicy)
    assert policy.spec.rules[0].limits[0].window_us == 10_000_000
    assert str(policy.origin) == "shop.yaml:1"
    assert policy.origin.line_of("spec.rules[0].limits[0].requests") == 9


def test_objects_come_in_order_of_file_then_document() -> None:
    """Whatever order the files were read in: precedence depends on it."""
    first = MINIMAL.replace("checkout,", "one,") + "---\n" + MINIMAL.replace("checkout,", "two,")
    files = [SourceFile("b.yaml", MINIMAL.encode()), SourceFile("a.yaml", first.encode())]

    objects, _ = decode(files)

    assert [str(each.origin) for each in objects] == ["a.yaml:1", "a.yaml:11", "b.yaml:1"]


def test_a_list_is_its_items() -> None:
    """As `kubectl get -o yaml` prints it, whatever the server added."""
    text = (
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: tidegate.dev/v1alpha1\n  kind: CacheProfile\n"
        "  metadata: {name: a, uid: x, managedFields: [], annotations: {}}\n  spec: {}\n  status: {usedBy: 1}\n"
    )

    (profile,), problems = _decode(text)

    assert problems == []
    assert isinstance(profile, CacheProfile)
    assert (profile.origin.line, profile.metadata.namespace) == (4, "default")


def test_a_list_without_items_is_skipped_with_a_warning() -> None:
    """It holds nothing to read."""
    assert _decode("apiVersion: v1\nkind: List\n") == (
        [],
        ["warning shop.yaml:1: v1 List is not ours to read: skipped"],
    )


def test_objects_of_other_groups_are_skipped_with_a_warning() -> None:
    """A folder may hold ConfigMaps too."""
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {}\n"

    assert _decode(text) == ([], ["warning shop.yaml:1: v1 ConfigMap is not ours to read: skipped"])


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("- a\n", ["error shop.yaml:1: a manifest is a mapping, not a list"]),
        (
            "a: 1\n",
            [
                (
                    "error shop.yaml:1: neither a manifest of tidegate.dev/v1alpha1 nor envoyproxy/ratelimit's YAML: "
                    "no `kind`, no `domain`"
                )
            ],
        ),
        (
            "kind: RateLimitPolicy\nmetadata: {name: a}\nspec: 5\n",
            [
                "error shop.yaml:1: apiVersion: is required: one of tidegate.dev/v1alpha1",
                "error shop.yaml:3: spec: a mapping is wanted, not the integer 5",
            ],
        ),
        (
            "apiVersion: tidegate.dev/v1alpha1\nspec: {}\n",
            [
                "error shop.yaml:1: kind: is required: one of RateLimitPolicy, CacheProfile",
                "error shop.yaml:1: metadata: is required",
            ],
        ),
        (
            "apiVersion: v1\nkind: RateLimitPolicy\nmetadata: {name: a, labels: 5}\nspec:\n",
            [
                "error shop.yaml:1: apiVersion: `v1` is unknown; known: tidegate.dev/v1alpha1",
                "error shop.yaml:3: metadata.labels: a mapping is wanted, not the integer 5",
                "error shop.yaml:4: spec: a mapping is wanted, not nothing",
            ],
        ),
    ],
)
def test_what_is_no_manifest_is_told(text: str, problems: list[str]) -> None:
    """With what would be right."""
    assert _decode(text) == ([], problems)


def test_all_problems_come_at_once_in_order_of_lines() -> None:
    """Of every file, every document, every field; a wrong part hides only the rules that would look into it."""
    text = MINIMAL.replace("requests: 5", "requests: 0, burst: 9").replace(
        "kind: RateLimitPolicy", "kind: RateLimitPolicy\nx: 1"
    )
    text = text.replace("type: Any", "type: Any, value: a") + "  failure: {onStoreError: 5}\n"

    objects, problems = _decode(text + "---\n" + "apiVersion: tidegate.dev/v1alpha1\nkind: CacheProfile\nspec: {}\n")

    assert objects == []
    assert [each.split(": ")[0] + " " + each.split(": ")[1] for each in problems[:5]] == [
        "error shop.yaml:3 x",
        "error shop.yaml:9 spec.rules[0].match[0].value",
        "error shop.yaml:10 spec.rules[0].limits[0].requests",
        "error shop.yaml:10 spec.rules[0].limits[0].burst",
        "error shop.yaml:11 spec.failure.onStoreError",
    ]
    assert problems[5:] == ["error shop.yaml:13: metadata: is required"]


def test_two_manifests_of_one_name_are_an_error_naming_both() -> None:
    """The API server would keep one; which, the author cannot see."""
    _, problems = _decode(MINIMAL + "---\n" + MINIMAL)

    assert problems == [
        (
            "error shop.yaml:13: metadata.name: RateLimitPolicy shop/checkout is already defined at shop.yaml:1; "
            "give it another name"
        )
    ]


def test_a_document_of_noise_tells_a_bounded_number_of_problems() -> None:
    """A million unknown fields are not a million lines."""
    noise = "".join(f"  {'x' * 9}{number}: 1\n" for number in range(MAX_PROBLEMS + 50))

    _, problems = _decode(MINIMAL + noise)

    assert len(problems) == MAX_PROBLEMS


def test_objects_and_problems_can_be_pickled() -> None:
    """Decoding may run in a child process (DECISIONS 35)."""
    text = MINIMAL + "---\n" + MINIMAL.replace("requests: 5", "requests: 0") + "---\ndomain: a\n"
    result = decode([SourceFile("a.yaml", text.encode())])

    assert pickle.loads(pickle.dumps(result)) == result


def test_an_object_of_the_api_server_decodes_without_lines_and_warnings() -> None:
    """The operator has no file, and what takes effect in a cluster is no reason to warn there."""
    (policy,), _ = _decode(MINIMAL)
    assert isinstance(policy, RateLimitPolicy)
    value = encode(policy) | {"status": {}}

    again, problems = decode_manifest(value, "RateLimitPolicy shop/checkout")

    assert problems == []
    assert again is not None
    assert (again.spec, again.metadata) == (policy.spec, policy.metadata)


def test_a_bad_object_of_the_api_server_is_named() -> None:
    """Its problems carry the given name and no line."""
    manifest, problems = decode_manifest({"apiVersion": "tidegate.dev/v1alpha1", "kind": "CacheProfile"}, "x")

    assert manifest is None
    assert [str(each) for each in problems] == ["x: metadata: is required", "x: spec: is required"]


def test_labels_with_dots_have_a_path_and_a_line() -> None:
    """Keys of maps stand in brackets, so that a dot in them splits nothing."""
    text = MINIMAL.replace("namespace: shop}", "namespace: shop, labels: {tidegate.dev/x: 5}}")

    assert _decode(text)[1] == [
        (
            "error shop.yaml:3: metadata.labels[tidegate.dev/x]: a string is wanted, not the integer 5; "
            'write it in quotes: "5"'
        )
    ]


def test_a_path_finds_its_nearest_written_parent() -> None:
    """A missing field has the line of what should hold it."""
    origin = Origin("a.yaml", 1, {"spec": 4, "spec.rules[1]": 9})

    assert [origin.line_of(path) for path in ("spec.rules[1].name", "spec.rules[0]", "kind", "")] == [9, 4, 1, 1]
    assert [parent(path) for path in ("a.b[0]", "a.b", "a")] == ["a.b", "a", ""]
    assert str(Origin("a.yaml")) == "a.yaml"


def test_every_rule_has_cel_and_words() -> None:
    """The CRD is generated from them; only comparisons with the former object cannot run here."""
    assert all(rule.cel and rule.message for rule in CEL_RULES)
    assert [rule.message for rule in CEL_RULES if rule.holds is None] == [
        "domain is immutable: a change would reset its counters"
    ]


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ("targetRefs: [{kind: Gateway, name: a}]\n  overrides: {rules: [%s]}", ["spec.targetRefs"]),
        ("workloadSelector: {matchLabels: {a: b}}\n  rules: [%s]", ["spec.workloadSelector"]),
        ("domain: a\n  rules: [%s]", []),
        (
            "domain: a\n  cacheProfileRef: {name: b}\n  failure: {onServiceError: Deny}\n  rules: [%s]",
            ["spec.failure.onServiceError"],
        ),
    ],
)
def test_a_policy_is_warned_of_what_cannot_act(spec: str, paths: list[str]) -> None:
    """Decoded and checked all the same."""
    rule = "{name: a, match: [{key: a, type: Any, from: {type: Method}}], limits: [{requests: 1, window: 1s}]}"
    text = f"apiVersion: tidegate.dev/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: a}}\nspec:\n  {spec % rule}\n"

    objects, problems = decode([SourceFile("a.yaml", text.encode())])

    assert len(objects) == 1
    assert [each.path for each in problems] == paths
    assert all(each.severity is Severity.WARNING for each in problems)


def test_a_profile_is_warned_of_what_cannot_act() -> None:
    """Each field that this version does not use is named."""
    text = (
        "apiVersion: tidegate.dev/v1alpha1\nkind: CacheProfile\nmetadata: {name: a}\n"
        "spec: {default: true, allowedNamespaces: {from: All}, store: {type: Memory}, "
        "leases: {slots: 2}, l1: {}, ttl: 1s}\n"
    )

    _, problems = decode([SourceFile("a.yaml", text.encode())])

    assert [each.path for each in problems] == [
        "spec.leases",
        "spec.allowedNamespaces",
        "spec.l1",
        "spec.ttl",
    ]


def test_a_store_without_endpoints_travels_between_processes() -> None:
    """What is not written has to be written by nobody: an empty list of endpoints is refused where it is read."""
    spec = StoreSpec()

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=StoreSpec) == spec

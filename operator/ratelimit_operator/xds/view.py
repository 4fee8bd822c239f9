"""What one client is to run, or runs: a set of forms with one version."""

from __future__ import annotations

from collections.abc import Mapping

from ratelimit_operator.xds.forms import Form, version_of
from ratelimit_service.wire.xds.discovery import encode_resources, encode_response


class View:
    """An immutable set of forms. Clients that are to run the same share one object.

    Attributes:
        forms: By name.
        version: Hash of the set (`version_info`).
    """

    __slots__ = ("forms", "version")

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self.forms = forms
        self.version = version_of(forms)

    def response(self, type_url: str, nonce: str) -> bytes:
        """The bytes of a response that holds this set."""
        resources = encode_resources(form.packed for form in self.forms.values())
        return encode_response(type_url, self.version, nonce, resources)

    def __repr__(self) -> str:
        return f"View({self.version}, {len(self.forms)} resources)"


EMPTY = View({})
"""What runs where nothing was ever accepted."""


def changed_names(before: View, after: View) -> list[str]:
    """Names that `after` has in a form that `before` has not, in the order of `after`."""
    if before is after:
        return []
    known = before.forms
    return [name for name, form in after.forms.items() if name not in known or known[name].version != form.version]


def removed_names(before: View, after: View) -> list[str]:
    """Names that `before` has and `after` has not."""
    return [] if before is after else [name for name in before.forms if name not in after.forms]

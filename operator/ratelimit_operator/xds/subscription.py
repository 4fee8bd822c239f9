"""One client's subscription to one type of resource: what it runs, what is under way to it, what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratelimit_operator.xds.forms import Form
from ratelimit_operator.xds.view import EMPTY, View, changed_names

MAX_NACKS_IN_A_ROW = 64
"""Refusals without an acceptance between them, after which a client is told nothing until there is something new."""


class Subscription:
    """State of one client. Changed by `Channel` only.

    A client that refuses a response without saying which resource is wrong, as foreign ones do, is sent halves of what
    changed until the culprit is found: what is held back stays as the client has it, `held`.

    Attributes:
        node: Name of the client.
        accepted: What it runs, `EMPTY` before its first acceptance.
        answered: Whether it has accepted anything, or told that it runs something.
        sent: What is under way to it and not answered yet, None: nothing.
        sent_at_s: When that was taken for sending.
        nonce: Name of the newest response.
        refused: Name → version that this client refuses.
        errors: Name → what it says of that.
        held: Names that are held back while a culprit is looked for.
        nacks: Refusals since the last acceptance.
        error: Last refusal as a whole, empty: none since the last acceptance.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.accepted = EMPTY
        self.answered = False
        self.sent: View | None = None
        self.sent_at_s = 0.0
        self.nonce = ""
        self.refused: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.held: tuple[str, ...] = ()
        self.nacks = 0
        self.error = ""
        self._own: tuple[View, frozenset[str], View, View] | None = None

    def desired(self, base: View, settled: Mapping[str, Form]) -> View:
        """What this client is to run: `base`, but what it refuses or is held back from stays as it was.

        Of a resource that it refuses and never ran in another form it gets the last one that others ran, else none.
        """
        kept = self._exceptions(base)
        if not kept:
            return base
        if self._own is not None and self._own[:3] == (base, kept, self.accepted):
            return self._own[3]
        forms = dict(base.forms)
        for name in kept:
            form = self.accepted.forms.get(name) or settled.get(name)
            if form is None or form.version == forms[name].version:
                del forms[name]
            else:
                forms[name] = form
        view = View(forms)
        # The same set again is the same object: sharing is by identity.
        if view.version == self.accepted.version:
            view = self.accepted
        self._own = (base, kept, self.accepted, view)
        return view

    def _exceptions(self, base: View) -> frozenset[str]:
        forms, known = base.forms, self.accepted.forms
        refused = [name for name, version in self.refused.items() if name in forms and forms[name].version == version]
        held = [
            name
            for name in self.held
            if name in forms and (name not in known or known[name].version != forms[name].version)
        ]
        return frozenset((*refused, *held))

    def send(self, view: View, nonce: str, now_s: float) -> None:
        """Note that `view` goes out, as the response of that name."""
        self.nonce = nonce
        self.sent, self.sent_at_s = view, now_s

    def accept(self) -> None:
        """What was sent is in force there."""
        assert self.sent is not None
        self.accepted, self.sent, self.answered = self.sent, None, True
        self.nacks = 0
        self.error = ""
        self.release()

    def resume(self, view: View) -> None:
        """A client that comes back already runs `view`."""
        self.accepted, self.answered = view, True

    def release(self) -> None:
        """Let the client have half of what is held back."""
        self.held = self.held[(len(self.held) + 1) // 2 :]

    def suspects(self) -> Sequence[str]:
        """What the response that is under way would change."""
        assert self.sent is not None
        return changed_names(self.accepted, self.sent)

    def hold_half(self, suspects: Sequence[str]) -> None:
        """Hold the second half of the suspects back, before what is held back already."""
        self.held = (*suspects[(len(suspects) + 1) // 2 :], *self.held)

    def refuse(self, name: str, version: str, message: str) -> None:
        """The client will not run this version of this resource."""
        self.refused[name] = version
        self.errors[name] = message

    def forget(self, base: View) -> None:
        """Drop what a new base has made pointless: refusals of versions that are gone, and the wait after too many."""
        for name in [name for name, version in self.refused.items() if _version(base, name) != version]:
            del self.refused[name], self.errors[name]
        self.nacks = 0

    @property
    def is_stuck(self) -> bool:
        """Whether it has refused too often to be sent more of the same."""
        return self.nacks >= MAX_NACKS_IN_A_ROW


def _version(view: View, name: str) -> str:
    form = view.forms.get(name)
    return "" if form is None else form.version

"""One type of resource: what is offered, who runs what, and what is quarantined. Pure; time is an argument.

An offer is sent to every client as a whole. What becomes of a resource is decided by the members, which are the clients
that are connected and those that are expected:

- a version that more than half of them run is *settled*: from then on a refusal is the refusing client's own matter;
- a version that at least half of them refuse before that is *quarantined*: all are given the settled form instead.
  Where there is none, those that do not refuse it keep it, so that a refusal never takes a limit away;
- a refusal by fewer marks the client, which stays with what it had (DECISIONS 45).

With a canary, one client gets an offer first, and whatever it refuses is quarantined; the others follow when it
accepts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from ratelimit_operator.xds.forms import Form
from ratelimit_operator.xds.subscription import MAX_NACKS_IN_A_ROW, Subscription
from ratelimit_operator.xds.view import EMPTY, View, changed_names, removed_names
from ratelimit_service.wire.xds.discovery import Nack

CANARY_NACKS = 3
"""Refusals of a canary in a row after which everything that is new is quarantined."""

_RECENT_VIEWS = 16


class Quarantine(msgspec.Struct, frozen=True):
    """A version that is not given out any more.

    Attributes:
        version: Of the resource.
        error: What the first client that refused it said.
    """

    version: str
    error: str


class Channel:
    """State of one type.

    Attributes:
        offered: Newest offer, None before the first.
        settled: Name → last form that more than half of the members ran.
        quarantined: Name → what is held back of the offer.
        subscriptions: By stream.
        changes: Grows with every change of what a status could show.
        turns: Grows when clients other than the one that spoke may have to be told something.
    """

    def __init__(self, *, canary: bool = False) -> None:
        self.offered: View | None = None
        self.settled: dict[str, Form] = {}
        self.quarantined: dict[str, Quarantine] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.changes = 0
        self.turns = 0
        self._canary = canary
        self._released: View | None = None
        self._base: View | None = None
        self._refusers: dict[str, dict[str, str]] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._expected: frozenset[str] = frozenset()
        self._recent: dict[str, View] = {}

    # What the operator says.

    def offer(self, forms: Mapping[str, Form]) -> None:
        """Take a new set; the same set again changes nothing."""
        view = View(forms)
        if self.offered is not None and self.offered.version == view.version:
            return
        before = self.offered or EMPTY
        changed, removed = changed_names(before, view), removed_names(before, view)
        # Clients may have left since: what more than half of the rest run is what a bad form falls back to.
        self._settle(changed)
        self.offered = view
        for name in (*changed, *removed):
            self._refusers.pop(name, None)
            self.quarantined.pop(name, None)
        for name in removed:
            self.settled.pop(name, None)
        self._rebase()
        for subscription in self.subscriptions.values():
            subscription.forget(view)

    def seed(self, forms: Mapping[str, Form]) -> None:
        """Take forms that are known to have been accepted, from before this process began."""
        self.settled.update(forms)
        self._rebase()

    def expect(self, nodes: Iterable[str]) -> None:
        """Name the clients that there should be, connected or not; they count as members."""
        self._expected = frozenset(nodes)
        for name in list(self._refusers):
            self._judge(name)

    # What clients say.

    def subscribe(self, stream: int, node: str, version: str) -> None:
        """A client asks for the first time on its stream; `version`: what it runs, empty: nothing."""
        subscription = self.subscriptions[stream] = Subscription(node)
        self.changes += 1
        known = self._recent.get(version)
        if known is not None:
            self._moved(subscription, known)
            subscription.resume(known)
            self._settle(known.forms)

    def unsubscribe(self, stream: int) -> None:
        """A client's stream has ended; what was under way to it is neither accepted nor refused."""
        subscription = self.subscriptions.pop(stream, None)
        if subscription is None:
            return
        self.changes += 1
        self._moved(subscription, EMPTY)
        for name in list(self._refusers):
            self._judge(name)

    def accept(self, stream: int) -> None:
        """A client accepts what was sent."""
        subscription = self.subscriptions[stream]
        view = subscription.sent
        assert view is not None
        new = changed_names(subscription.accepted, view)
        self._moved(subscription, view)
        subscription.accept()
        self.changes += 1
        self._settle(new)
        for name in self._refusers.keys() & set(new):
            # It was another version of the client that could not.
            if self._refusers[name].pop(subscription.node, None) is not None:
                self._judge(name)
        if self._canary and self._canary_is_done():
            self._released = self._base
            self.turns += 1

    def refuse(self, stream: int, nack: Nack) -> None:
        """A client refuses what was sent, and runs on with what it had."""
        subscription = self.subscriptions[stream]
        view, suspects = subscription.sent, subscription.suspects()
        assert view is not None
        named = _named(nack, view, suspects)
        is_canary = self._is_canary(subscription)
        subscription.sent = None
        subscription.nacks += 1
        subscription.error = nack.message
        self.changes += 1
        if not named and len(suspects) == 1:
            named = {suspects[0]: nack.message}
        if named:
            for name, message in named.items():
                self._refused(subscription, name, view.forms[name].version, message, at_once=is_canary)
            subscription.release()
        elif suspects:
            subscription.hold_half(suspects)
        else:
            # It refuses what it runs: there is nothing that could be left out.
            subscription.nacks = MAX_NACKS_IN_A_ROW
        if is_canary and subscription.nacks >= CANARY_NACKS:
            for name in suspects:
                self._refused(subscription, name, view.forms[name].version, nack.message, at_once=True)

    def next_view(self, stream: int) -> View | None:
        """What is to be sent to a client now; None: nothing, or an answer is awaited first."""
        subscription = self.subscriptions.get(stream)
        if subscription is None or subscription.sent is not None or subscription.is_stuck or self._base is None:
            return None
        base = self._base
        if self._canary and not self._is_canary(subscription) and not self._canary_is_done():
            if self._released is None:
                return None
            base = self._released
        view = subscription.desired(base, self.settled)
        if subscription.answered and view.version == subscription.accepted.version:
            return None
        # A client that runs nothing is told even that there is nothing.
        return view

    # What a status shows.

    def acked(self, name: str) -> int:
        """Clients that run the offered version of a resource."""
        form = None if self.offered is None else self.offered.forms.get(name)
        return 0 if form is None else self._counts.get((name, form.version), 0)

    def is_synced(self) -> bool:
        """Whether every client runs the whole offer."""
        return self.offered is not None and all(
            each.accepted.version == self.offered.version for each in self.subscriptions.values()
        )

    # How.

    def _members(self) -> Collection[str]:
        return self._expected.union(each.node for each in self.subscriptions.values())

    def _rebase(self) -> None:
        self.changes += 1
        if self.offered is None:
            return
        replaced = {name: self.settled[name] for name in self.quarantined if name in self.settled}
        self._base = View({**self.offered.forms, **replaced}) if replaced else self.offered
        self.turns += 1
        self._recent[self._base.version] = self._base
        while len(self._recent) > _RECENT_VIEWS:
            del self._recent[next(iter(self._recent))]

    def _moved(self, subscription: Subscription, after: View) -> None:
        """Count what a client runs from now on."""
        before = subscription.accepted
        for name in changed_names(after, before):
            self._count(name, before.forms[name].version, -1)
        for name in changed_names(before, after):
            self._count(name, after.forms[name].version, 1)

    def _count(self, name: str, version: str, step: int) -> None:
        key = (name, version)
        count = self._counts.get(key, 0) + step
        if count:
            self._counts[key] = count
        else:
            del self._counts[key]

    def _settle(self, names: Iterable[str]) -> None:
        """Note which of these are run by more than half now."""
        offered = self.offered or EMPTY
        members = len(self._members())
        for name in names:
            form = offered.forms.get(name)
            if form is not None and 2 * self._counts.get((name, form.version), 0) > members:
                self.settled[name] = form
                if name in self.quarantined:
                    self._judge(name)

    def _refused(self, subscription: Subscription, name: str, version: str, message: str, *, at_once: bool) -> None:
        subscription.refuse(name, version, message)
        offered = None if self.offered is None else self.offered.forms.get(name)
        if offered is None or offered.version != version:
            return
        self._refusers.setdefault(name, {})[subscription.node] = message
        self._judge(name, at_once=at_once)

    def _judge(self, name: str, *, at_once: bool = False) -> None:
        """Decide anew whether the offered form of a resource is quarantined."""
        assert self.offered is not None
        form, members = self.offered.forms[name], self._members()
        refusers = self._refusers.get(name, {})
        for gone in [node for node in refusers if node not in members]:
            del refusers[gone]
        settled = self.settled.get(name)
        if not refusers or (settled is not None and settled.version == form.version):
            if self.quarantined.pop(name, None) is not None:
                self._rebase()
            return
        if name not in self.quarantined and (at_once or 2 * len(refusers) >= len(members)):
            self.quarantined[name] = Quarantine(form.version, next(iter(refusers.values())))
            self._rebase()

    def _is_canary(self, subscription: Subscription) -> bool:
        return self._canary and subscription.node == min(each.node for each in self.subscriptions.values())

    def _canary_is_done(self) -> bool:
        assert self._base is not None
        canary = next(each for each in self.subscriptions.values() if self._is_canary(each))
        return canary.answered and canary.accepted.version == canary.desired(self._base, self.settled).version


def _named(nack: Nack, view: View, suspects: Collection[str]) -> dict[str, str]:
    """Resource → message, of those that a refusal names and that are new to the client in this response."""
    named: dict[str, str] = {}
    new = set(suspects)
    for refusal in nack.refusals:
        name = f"{refusal.kind} {refusal.name}"
        if name in new and refusal.version in ("", view.forms[name].version):
            text = f"{refusal.path}: {refusal.message}" if refusal.path else refusal.message
            named.setdefault(name, text)
    return named

"""How old a value in memory may be: epochs, fill tokens and the Δ rule. Pure; time is an argument.

Redis runs commands one after the other, and pushes what changed down the same connection that carries the replies. So
when a reply has arrived to a command that was *sent* at `s`, every write that Redis executed before `s` has been heard
of. A value in memory is served at `now` while `now - s` is at most Δ; then it lacks at most the writes of the last Δ,
with no agreement of clocks. Three rules complete it:

* A *fill* (a read of Redis, or a load) takes a token for its key before it begins. What is heard about the key
  meanwhile revokes the token, and a value without its token is not stored: a read that races a write never puts
  the old value back.
* When the connection ends, what changed from then on is not heard, so the *epoch* ends with it. Values of an earlier
  epoch are not served as fresh again; nothing has to be walked through for that.
* A value that Redis does not watch for us (loaded while Redis was away) is served for Δ from the start of its load.
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["NEVER_HEARD_US", "UNWATCHED", "FillToken", "Fills", "serves"]

NEVER_HEARD_US: Final = -(2**62)
"""Nothing was heard in this epoch."""

UNWATCHED: Final = -1
"""In place of an epoch: nobody tells us when this value changes."""


class FillToken(msgspec.Struct, frozen=True, gc=False):
    """The right to store one value.

    Attributes:
        key: Which key.
        serial: Grows with every token of this process.
        epoch: The epoch in which the fill began.
        began_us: When it began, before anything was sent; the value is at least as new as this.
    """

    key: str
    serial: int
    epoch: int
    began_us: int


class Fills:
    """The fills under way, and which of them may still store what they bring."""

    __slots__ = ("_open", "_serial", "revoked")

    def __init__(self) -> None:
        self._open: dict[str, set[int]] = {}
        self._serial = 0
        self.revoked = 0
        """Fills that were told not to store, since the start."""

    def begin(self, key: str, epoch: int, now_us: int) -> FillToken:
        """Begin a fill, before anything is sent or loaded for it."""
        self._serial += 1
        self._open.setdefault(key, set()).add(self._serial)
        return FillToken(key, self._serial, epoch, now_us)

    def settle(self, token: FillToken, epoch: int, *, wrote: bool) -> bool:
        """End a fill; whether its value may be kept, which is so at most once.

        Args:
            token: The fill.
            epoch: The epoch in force.
            wrote: It stored a new value in the level below, so that what other fills of the key have read may be
                older: they may not store any more. If two writers race, the first to settle keeps its value and the
                second has to drop the key, because which of them Redis has last is not known here.
        """
        serials = self._open.get(token.key)
        if serials is None or token.serial not in serials:
            return False
        if wrote:
            del self._open[token.key]
            self.revoked += len(serials) - 1
        else:
            self._remove(token, serials)
        return token.epoch == epoch

    def abandon(self, token: FillToken) -> None:
        """End a fill that brought nothing, or has ended."""
        serials = self._open.get(token.key)
        if serials is not None and token.serial in serials:
            self._remove(token, serials)

    def revoke(self, key: str) -> None:
        """The key changed: what is under way for it may be old."""
        self.revoked += len(self._open.pop(key, ()))

    def revoke_all(self) -> None:
        """Any key may have changed."""
        self.revoked += sum(len(serials) for serials in self._open.values())
        self._open.clear()

    def _remove(self, token: FillToken, serials: set[int]) -> None:
        serials.discard(token.serial)
        if not serials:
            del self._open[token.key]


def serves(epoch: int, filled_us: int, *, now_epoch: int, heard_us: int, now_us: int, delta_us: int) -> bool:
    """Whether a value may be served as fresh.

    Args:
        epoch: In which it was filled, or `UNWATCHED`.
        filled_us: When its fill began.
        now_epoch: The epoch in force.
        heard_us: Send time of the newest command of this epoch whose reply has arrived; `NEVER_HEARD_US` if none.
        now_us: Now, by the clock of the other times.
        delta_us: Δ, the most that it may be behind.
    """
    if epoch == now_epoch:
        return now_us - max(filled_us, heard_us) <= delta_us
    return epoch == UNWATCHED and now_us - filled_us <= delta_us

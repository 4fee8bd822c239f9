"""The newest set of policies as the messages that it came in, for workers that come later. Pure."""

from __future__ import annotations

from ratelimit_service.sources.frames import Frame, SetBegins, SetEnds, SetRefused


class Policies:
    """What has come so far: the set in force, and a refusal since."""

    def __init__(self) -> None:
        self._open: list[bytes] = []
        self._good = b""
        self._refusal = b""

    def take_in(self, frame: Frame, raw: bytes) -> bytes:
        """Take in a message; return the whole set with its last one, else nothing."""
        if isinstance(frame, SetBegins):
            self._open = []
        self._open.append(raw)
        if isinstance(frame, SetRefused):
            self._refusal = raw
            return raw
        if isinstance(frame, SetEnds):
            self._good, self._refusal = b"".join(self._open), b""
            self._open = []
            return self._good
        return b""

    def replay(self) -> bytes:
        """What a worker that begins now has to know: the set in force, and that a newer one was refused."""
        return self._good + self._refusal

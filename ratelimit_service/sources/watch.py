"""The watching process: polls the files, and sends a set whenever it has changed.

Parsing YAML holds the interpreter for seconds where a set is large (DECISIONS 35), so it is done in a process of its
own, which lives as long as the service: a file that stays the same is decoded once, and nothing is forked from a large
process in the middle of traffic. It ends when its standard input does, so it cannot outlive the service.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import BinaryIO

from ratelimit_service.sources.bursts import in_bursts
from ratelimit_service.sources.frames import HEADER_BYTES, WatchSettings, decode_settings, encode_frame, frames_of
from ratelimit_service.sources.loading import Loader


def read_settings(stream: BinaryIO) -> WatchSettings:
    """The settings that the serving process sends first; raises EOFError if it is gone."""
    header = stream.read(HEADER_BYTES)
    content = stream.read(int.from_bytes(header, "big"))
    if len(header) < HEADER_BYTES or not content:
        raise EOFError
    return decode_settings(content)


def publish(loader: Loader, stream: BinaryIO) -> None:
    """Load the set, and send it if it has changed."""
    start_ns = time.monotonic_ns()
    loaded = loader.load()
    if loaded is None:
        return
    load_us = (time.monotonic_ns() - start_ns) // 1_000
    stream.writelines(encode_frame(frame) for frame in frames_of(loaded, load_us))
    stream.flush()


def watch(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Poll until `stdin` ends or `stdout` has no reader."""
    try:
        settings = read_settings(stdin)
        loader = Loader(settings.paths, settings.options)
        ended = False
        pace: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        while not ended:
            with pace:
                publish(loader, stdout)
            # The first set is waited for; from then on there are requests that must not wait.
            pace = in_bursts()
            ended = bool(select.select([stdin], [], [], settings.poll_ms / 1_000)[0])
    except (EOFError, BrokenPipeError):
        return


def main() -> None:
    """Entry of `python -m ratelimit_service.sources.watch`."""
    # Ctrl-C and a supervisor's SIGTERM reach the whole process group; the service decides when this process ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The service's own work comes first where both share a core.
    os.nice(5)
    watch(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()

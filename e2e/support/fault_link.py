"""A link that a test can slow down, for tests that have no event loop of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.fault_proxy import FaultProxy


@contextmanager
def fault_link(server_port: int) -> Iterator[FaultProxy]:
    """A `FaultProxy` that runs on a thread until the block ends.

    Only its port and `delay_seconds`, a plain number, may be used from outside.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = FaultProxy(server_port)
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result(30)
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.__aexit__(None, None, None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

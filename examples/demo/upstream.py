"""A small service for Envoy to protect: answers 200 to everything and says what it saw."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

COST_HEADER: Final = "x-cost"
"""A request that carries it is answered with the same number in `x-tokens-used`, as a language model would."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer any request."""
        body = f"{self.command} {self.path}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        cost = self.headers.get(COST_HEADER)
        if cost is not None:
            self.send_header("x-tokens-used", cost)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 — the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — http.server's signature
        """Keep quiet."""


@contextmanager
def upstream() -> Iterator[int]:
    """Listen on a free port of loopback while the block runs; gives the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A proxy in front of the API server that breaks on command: refuses, hangs, and forges the ends of watches.

It speaks plain HTTP to the operator and TLS to the API server. Each connection is a thread; nothing is pooled.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from e2e.support.api_server import ApiServer

Refuse = Callable[[str, str], int]
"""Takes a method and a path; gives the status that is answered instead, 0: the API server's."""


class Cut:
    """The end of one watch: `code` of the ERROR event that is sent before it, 0: none."""

    def __init__(self) -> None:
        self.code = 0
        self.event = threading.Event()


class Proxy:
    """A proxy and what it does to requests.

    Attributes:
        refuse: Which requests are refused.
        hang: Whether requests are taken and never answered, and open watches stand still.
        refused: How many were refused.
        watched: Paths of the watches that were opened.
    """

    def __init__(self, server: ApiServer) -> None:
        self.refuse: Refuse = lambda _method, _path: 0
        self.hang = False
        self.refused = 0
        self.watched: list[str] = []
        self.server = server
        self.url = ""
        self.rewrite: Callable[[str, bytes], list[bytes]] = lambda _path, line: [line]
        """Takes the path of a watch and one event's line; gives the lines that are sent instead."""
        self.cuts: list[Cut] = []
        self.resumed = threading.Event()
        self.resumed.set()

    def end_watches(self, code: int = 0) -> None:
        """End every open watch; with a code: after an ERROR event of it, such as 410."""
        for cut in self.cuts:
            cut.code = code
            cut.event.set()
        self.cuts.clear()


def _handler(proxy: Proxy) -> type[http.server.BaseHTTPRequestHandler]:
    context = ssl.create_default_context(cafile=str(proxy.server.ca))
    context.check_hostname = False

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def _answer(self, code: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(code)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _any(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length) if length else None
            proxy.resumed.wait()
            code = proxy.refuse(self.command, self.path)
            if code:
                proxy.refused += 1
                status = {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "message": "injected",
                    "code": code,
                }
                self._answer(code, json.dumps(status).encode())
                return
            host, _, port = proxy.server.address.partition(":")
            upstream = http.client.HTTPSConnection(host, int(port), context=context, timeout=600)
            # Bodies go on as they come, without their encoding: so nothing may be compressed.
            dropped = ("host", "connection", "accept-encoding")
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            try:
                if "watch=true" in self.path and response.status == 200:
                    self._stream(response)
                else:
                    self._answer(response.status, response.read(), response.headers.get("content-type", ""))
            finally:
                upstream.close()

        def _stream(self, response: http.client.HTTPResponse) -> None:
            cut = Cut()
            proxy.cuts.append(cut)
            proxy.watched.append(self.path)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            lines: list[bytes] = []
            arrived = threading.Condition()

            def read() -> None:
                # The watch ends for the operator when it ends here, whatever ended it.
                with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
                    while line := response.readline():
                        with arrived:
                            lines.append(line)
                            arrived.notify()
                with arrived:
                    lines.append(b"")
                    arrived.notify()

            threading.Thread(target=read, daemon=True).start()
            self.close_connection = True
            try:
                while not cut.event.is_set():
                    with arrived:
                        arrived.wait_for(lambda: bool(lines) or cut.event.is_set(), 0.05)
                        waiting, lines[:] = list(lines), []
                    proxy.resumed.wait()
                    for line in waiting:
                        if not line:
                            return
                        if not cut.event.is_set():
                            for sent in proxy.rewrite(self.path, line):
                                self._chunk(sent)
                code = cut.code
                if code:
                    gone = {
                        "kind": "Status",
                        "apiVersion": "v1",
                        "code": code,
                        "message": "too old",
                        "status": "Failure",
                    }
                    self._chunk(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
                self._chunk(b"")
            except OSError:
                return

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler._any)
    return Handler


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that is gone is no error here."""


@contextmanager
def api_proxy(server: ApiServer) -> Iterator[Proxy]:
    """A proxy that is gone when the block ends."""
    proxy = Proxy(server)
    with _Server(("127.0.0.1", 0), _handler(proxy)) as listening:
        proxy.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.resumed.set()
            proxy.end_watches()
            listening.shutdown()
            thread.join(10)

"""A real OTLP collector over gRPC, in this process: it keeps the spans that it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What has arrived so far.

    Attributes:
        endpoint: Where it listens.
        spans: All of them, in the order of their coming.
        resources: Attributes of the resources that sent them.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self._arrived = threading.Condition()

    def Export(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802 — gRPC's name
        """Take spans in."""
        with self._arrived:
            for part in request.resource_spans:
                self.resources.append({each.key: each.value.string_value for each in part.resource.attributes})
                for scope in part.scope_spans:
                    self.spans.extend(scope.spans)
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        """Spans of that name."""
        return [span for span in self.spans if span.name == name]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free loopback port."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    collector.endpoint = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def attributes_of(span: Span) -> dict[str, object]:
    """Attributes as plain values; a list of texts as a tuple."""
    found: dict[str, object] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = tuple(item.string_value for item in value.values) if kind == "array_value" else value
    return found

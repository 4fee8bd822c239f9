"""Traces to a collector by OTLP over gRPC. Imported only where an endpoint is set; needs the extra `traces`.

Service name, resource, headers, TLS and pace are the SDK's own environment variables (`OTEL_*`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ratelimit_service.telemetry.tracing import CallTrace
from ratelimit_service.wire.grpc.status import GrpcError
from ratelimit_service.wire.rls.client import decode_response
from ratelimit_service.wire.rls.decode import MalformedRequest, decode_request

_NAME: Final = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
_CLOSE_MS: Final = 2_000


class OtlpSink:
    """Makes spans of traces, and exports them in batches from a thread of its own."""

    def __init__(self, endpoint: str, version: str, environment: Mapping[str, str]) -> None:
        """Export to `endpoint`: `http://HOST:PORT`, plain, or `https://HOST:PORT`."""
        resource = Resource.create({"service.version": version})
        if "OTEL_SERVICE_NAME" not in environment and "service.name" not in environment.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            resource = resource.merge(Resource({SERVICE_NAME: "tidegate"}))
        # Whether to follow a call is its caller's decision; without one nothing is.
        self._provider = TracerProvider(sampler=ParentBased(root=ALWAYS_OFF), resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tidegate", version)
        self._propagator = TraceContextTextMapPropagator()

    def take(self, trace: CallTrace, body: bytes, answer: object) -> None:
        """One span for the call, and one for each step that it took."""
        parent = self._propagator.extract({"traceparent": trace.traceparent.decode("ascii")})
        call = self._tracer.start_span(
            _NAME, parent, SpanKind.SERVER, start_time=trace.began_ns, attributes=_request_attributes(body)
        )
        inside = api.set_span_in_context(call, parent)
        matched_ns = trace.matched_ns or trace.ended_ns
        outcomes_ns = trace.outcomes_ns or matched_ns
        steps = [("match", trace.began_ns, matched_ns)]
        if trace.matched_ns:
            steps.append(("store wait", matched_ns, outcomes_ns))
        steps.append(("verdict", outcomes_ns, trace.ended_ns))
        for name, began_ns, ended_ns in steps:
            step = self._tracer.start_span(name, inside, start_time=began_ns)
            if name == "store wait":
                step.set_attribute("tidegate.sources", trace.sources)
                step.set_attribute("tidegate.degraded", trace.degraded)
            step.end(ended_ns)
        if isinstance(answer, GrpcError):
            call.set_attribute("rpc.grpc.status_code", int(answer.code))
            call.set_status(Status(StatusCode.ERROR, answer.message))
        else:
            assert isinstance(answer, bytes)
            call.set_attribute("rpc.grpc.status_code", 0)
            call.set_attribute("tidegate.code", "OVER_LIMIT" if decode_response(answer).over else "OK")
        call.end(trace.ended_ns)

    def close(self) -> None:
        """See `TraceSink.close`; a collector that is away does not hold the end up."""
        self._provider.force_flush(_CLOSE_MS)
        self._provider.shutdown()


def _request_attributes(body: bytes) -> dict[str, str | int]:
    """What a span may say of a request: never what its descriptors hold."""
    attributes: dict[str, str | int] = {
        "rpc.system": "grpc",
        "rpc.service": "envoy.service.ratelimit.v3.RateLimitService",
        "rpc.method": "ShouldRateLimit",
    }
    try:
        request = decode_request(body)
    except MalformedRequest:
        return attributes
    attributes["tidegate.domain"] = request.domain.decode("utf-8", "backslashreplace")
    attributes["tidegate.descriptors"] = len(request.descriptors)
    return attributes

"""Traces, where `--traces-endpoint` says where they go."""

from __future__ import annotations

import os

from ratelimit_service.errors import TidegateError
from ratelimit_service.settings import ServeSettings
from ratelimit_service.telemetry.tracing import Tracing


class TracesMissing(TidegateError):
    """What makes and sends traces is not installed."""


def make_tracing(settings: ServeSettings, version: str) -> Tracing | None:
    """What follows calls; None: no endpoint is set, and nothing of it is imported.

    Raises:
        TracesMissing: The extra `traces` is not installed.
    """
    if not settings.traces_endpoint:
        return None
    try:
        from ratelimit_service.telemetry.otlp import OtlpSink  # noqa: PLC0415 — it costs 13 MB
    except ImportError as error:
        raise TracesMissing(
            f"--traces-endpoint {settings.traces_endpoint} needs the extra traces, pip install tidegate[traces], "
            f"or --traces-endpoint none: {error}"
        ) from error
    return Tracing(OtlpSink(settings.traces_endpoint, version, os.environ))

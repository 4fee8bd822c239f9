"""Where policies come from, as `--policies` says."""

from __future__ import annotations

from ratelimit_service.policy.options import CompileOptions
from ratelimit_service.settings import ServeSettings
from ratelimit_service.sources.contract import Apply, Source
from ratelimit_service.sources.files import FileSource
from ratelimit_service.sources.xds.source import XdsObserver, XdsSource


def make_source(settings: ServeSettings, apply: Apply, observer: XdsObserver) -> Source:
    """The one source of this service; what it finds goes to `apply`, and `observer` is told."""
    options = CompileOptions(merge_domain_config=settings.merge_domain_config)
    if settings.xds is not None:
        return XdsSource(settings.xds, apply, options, observer)
    return FileSource([str(path) for path in settings.policies], apply, options, observer)

"""Every board that ships."""

from __future__ import annotations

from typing import Final

from tools.dashboards import backend, control_plane, domain, envoy_view, overview, value_cache
from tools.dashboards.panels import Board

BOARDS: Final[tuple[Board, ...]] = (
    overview.BOARD,
    domain.BOARD,
    backend.BOARD,
    value_cache.BOARD,
    control_plane.BOARD,
    envoy_view.BOARD,
)
"""In the order in which a reader would open them."""

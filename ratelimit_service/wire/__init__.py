"""Protocols as bytes: no sockets and no clocks."""

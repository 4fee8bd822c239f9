"""HTTP/2 without a socket: bytes to events, events to bytes (RFC 9113, RFC 7541)."""

"""Hits counted in Redis: connections, scripts, batches. Nothing outside of this package knows the Redis library."""

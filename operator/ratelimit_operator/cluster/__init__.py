"""Everything that the operator says to the API server: lists, server-side apply, the Lease, events."""

"""Which Redis, how it is reached and which of its nodes has a key: what the limiter and the value cache share."""

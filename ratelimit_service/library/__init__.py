"""The parts of the library's limiter; programs import `ratelimit_service.adapter`."""

"""Tidegate: exact rate limiting for Envoy, and the library that it is made of."""

"""Tidegate: exact rate limiting for Envoy, and the library that it is made of."""

__version__ = "0.1.0"
"""That of the distribution, said here too: asking what is installed would cost a service two megabytes for good."""

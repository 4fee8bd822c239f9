"""Envoy's rate-limit messages as bytes."""

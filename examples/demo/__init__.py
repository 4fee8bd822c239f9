"""Envoy being limited, live: `python -m examples.demo`."""

"""Envoy's configuration out of policies. Pure: plain dicts in the field names of Envoy's API, ready for JSON or YAML.

Not the classes of envoy-data-plane: importing them costs half a second and 50 MB, their JSON has other names, and a
class would not know either what a running Envoy refuses. So the proof is a real Envoy that loads what is made here.
"""

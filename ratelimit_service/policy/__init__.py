"""Policies: what users write, decoded, checked and compiled. Pure: no clock, no socket, no loop."""

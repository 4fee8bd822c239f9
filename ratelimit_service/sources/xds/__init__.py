"""Policies from an operator, over xDS.

A process of its own (`client`) holds the stream, keeps the last good set on disk, decodes and compiles, so that
neither a large response nor a large set ever holds up a decision. It tells the serving process (`source`) which domains
changed.
"""

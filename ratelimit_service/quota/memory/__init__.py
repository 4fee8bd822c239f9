"""Counting in this process: exact, bounded, and gone with it."""

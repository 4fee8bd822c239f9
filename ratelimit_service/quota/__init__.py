"""Where hits are counted."""

"""Commands of `tidegate` that ask the API server (entry-point group `tidegate.commands`)."""

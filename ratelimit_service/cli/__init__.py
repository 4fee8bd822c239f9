"""The command line: `tidegate serve | check | validate | explain`."""

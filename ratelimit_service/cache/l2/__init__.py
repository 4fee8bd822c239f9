"""The cache's level in Redis: keys, scripts, nodes, and the level itself."""

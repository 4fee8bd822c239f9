"""Distribution of what is compiled: an ADS server, and the sets that replicas begin with while there is none."""

"""Several processes that serve as one (DECISIONS 32).

A parent holds the listening sockets, the admin port and the policies; each worker is a replica of the shared store,
with a slot of its own. The parent hands every connection it accepts to the worker that has the fewest, so that the
few connections of an Envoy are spread evenly, and keeps a copy until the worker has it: a worker that dies takes
nothing with it but its own connections.
"""

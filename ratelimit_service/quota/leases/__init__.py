"""What a replica holds of a shared store's budgets, and what it decides from that: no sockets, time is an argument."""

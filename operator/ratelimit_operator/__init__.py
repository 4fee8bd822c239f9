"""Tidegate's control plane: watches policies, compiles them, gives them to the service and says so in their status."""

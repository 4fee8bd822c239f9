"""Tidegate's control plane: watches policies, compiles them and pushes them to the service.

This version of the distribution ships the data plane; the operator's modules join it under this name.
"""

"""The edges of the control plane: what kopf sees goes in, what the plan decides goes out."""

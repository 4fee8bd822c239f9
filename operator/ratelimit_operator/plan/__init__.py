"""Pure decisions of the control plane: what is live, who wins, what status says. No clock, no socket, no loop."""

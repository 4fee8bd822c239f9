"""Where policies attach: Gateways and routes, and which policies are in force on each route. Pure."""

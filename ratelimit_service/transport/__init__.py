"""Sockets: gRPC servers behind one interface, the admin HTTP server, the gRPC client."""

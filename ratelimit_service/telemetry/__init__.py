"""What the service tells about itself: metrics and logs. Nothing here reads a socket or knows the event loop."""

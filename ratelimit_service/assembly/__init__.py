"""What the service is built out of: the only modules, beside `app`, that name concrete classes."""

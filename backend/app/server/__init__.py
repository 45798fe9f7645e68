"""The server process: protocol, shutdown, capacity."""

"""The native HTTP API: one module a resource, each handler one service call."""

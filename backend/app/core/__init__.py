"""Shared foundations: settings, errors, logging, middleware, routing and the clock."""

"""The rules, one module a resource: plain async functions, session or connection first."""

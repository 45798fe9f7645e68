"""Business rules and queries: async functions with a session or a reader as first parameter."""

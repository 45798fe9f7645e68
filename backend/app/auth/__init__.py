"""Authentication and authorization: passwords, tokens, identities, permissions."""

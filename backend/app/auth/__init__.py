"""Who is asking, and who may: passwords and tokens, identities, permissions."""

"""Routes of integrations."""

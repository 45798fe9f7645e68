"""Tables of integrations: events and webhooks."""

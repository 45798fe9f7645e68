"""Tables for integrations: events."""

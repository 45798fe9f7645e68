"""Schemas of the integrations."""

"""Schemas of integrations."""

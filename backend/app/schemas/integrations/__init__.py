"""Schemas for integrations."""

"""Integrations: what agents and other programs use."""

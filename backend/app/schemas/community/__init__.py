"""Schemas of the community."""

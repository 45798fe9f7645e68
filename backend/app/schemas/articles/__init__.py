"""Schemas of articles."""

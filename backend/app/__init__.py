"""Pressroom: a headless blog backend. docs/architecture.md has the map of the rooms."""

__version__ = "0.1.0"

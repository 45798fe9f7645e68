"""Pressroom: a headless blog backend. docs/architecture.md has the layout."""

__version__ = "0.1.0"
